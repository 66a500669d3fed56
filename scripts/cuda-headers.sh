#!/usr/bin/env bash
# Downloads the headers for compiling the CUDA plugin into DIR/include (25 MB): scripts/cuda-headers.sh DIR
# They come from NVIDIA's wheels on the Python package index, in the versions that libtorch 2.11.0 was built with. nccl.h must
# match the NCCL at run time, because its configuration is passed by value. Downloads about 200 MB.
set -euo pipefail
dir=${1:?usage: scripts/cuda-headers.sh DIR}
version="cuda 13.0, nccl 2.28.9"
[ "$(cat "$dir/headers-version" 2>/dev/null)" = "$version" ] && exit 0

echo "CUDA headers: downloading (about 200 MB) into $dir"
work=$(mktemp -d "${TMPDIR:-/tmp}/cuda-headers.XXXXXX")
trap 'rm -rf "$work"' EXIT
cat > "$work/requirements.txt" <<'REQUIREMENTS'
nvidia-cuda-cccl==13.0.85 --hash=sha256:e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649
nvidia-cuda-crt==13.0.88 --hash=sha256:2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-nccl-cu13==2.28.9 --hash=sha256:e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42
REQUIREMENTS
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
  --python-version 3.11 --platform manylinux_2_18_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  -d "$work/wheels" -r "$work/requirements.txt"

python3 - "$work/wheels" "$work/tree/include" <<'PYTHON'
import pathlib, sys, zipfile
wheels, include = map(pathlib.Path, sys.argv[1:])
for wheel in wheels.iterdir():
    with zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            path, found, header = name.partition("/include/")
            if path.startswith("nvidia/") and found and header and not header.endswith("/"):
                target = include / header
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(z.read(name))
PYTHON
echo "$version" > "$work/tree/headers-version"
rm -rf "$dir"
mkdir -p "$(dirname "$dir")"
mv "$work/tree" "$dir"
