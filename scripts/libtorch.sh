#!/usr/bin/env bash
# Downloads the build dependencies from libtorch 2.11.0 into DIR (about 500 MB): scripts/libtorch.sh DIR
# pip downloads the wheels from the Python package index. The script keeps only the CPU parts of the CUDA build, and the two
# small NVIDIA libraries that libtorch_cpu.so links to. A full `pip install torch` would take 4.7 GB.
# It also keeps the exported symbols of libtorch's CUDA libraries: scripts/cuda-plugin.sh checks the plugin against them.
set -euo pipefail
dir=${1:?usage: scripts/libtorch.sh DIR}
version=2.11.0
[ "$(cat "$dir/build-version" 2>/dev/null)" = "$version" ] && [ -s "$dir/cuda-symbols" ] && [ -d "$dir/licenses" ] && exit 0

echo "libtorch $version: downloading (about 545 MB) into $dir"
work=$(mktemp -d "${TMPDIR:-/tmp}/libtorch.XXXXXX")
trap 'rm -rf "$work"' EXIT
cat > "$work/requirements.txt" <<'REQUIREMENTS'
torch==2.11.0 --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
nvidia-cuda-cupti==13.0.85 --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
REQUIREMENTS
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
  --python-version 3.11 --implementation cp --abi cp311 --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d "$work/wheels" -r "$work/requirements.txt"

python3 - "$work/wheels" "$work/tree" <<'PYTHON'
import pathlib, sys, zipfile
wheels, tree = map(pathlib.Path, sys.argv[1:])
libraries = {"libtorch_cpu.so", "libc10.so", "libcupti.so.13", "libcudart.so.13"}
for wheel in wheels.iterdir():
    with zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            base = name.rsplit("/", 1)[-1]
            if ".dist-info/licenses/" in name and base:
                target = tree / "licenses" / name.split("-", 1)[0] / base
            elif name.startswith("torch/include/") and base:
                target = tree / "include" / name[len("torch/include/"):]
            elif base in ("libtorch_cuda.so", "libc10_cuda.so"):
                target = tree / "cuda" / base
            elif base in libraries or (base.startswith("libgomp") and name.startswith("torch")):
                target = tree / "lib" / base
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with z.open(name) as source, open(target, "wb") as out:
                while block := source.read(1 << 20):
                    out.write(block)
PYTHON
nm -D --defined-only "$work"/tree/cuda/*.so | awk 'NF == 3 {print $3}' | LC_ALL=C sort -u > "$work/tree/cuda-symbols"
rm -r "$work/tree/cuda"
# torch-sys links "torch". A linker script replaces libtorch.so, which would require libtorch_cuda.so.
echo 'INPUT(libtorch_cpu.so libc10.so)' > "$work/tree/lib/libtorch.so"
echo "$version" > "$work/tree/build-version"
rm -rf "$dir"
mkdir -p "$(dirname "$dir")"
mv "$work/tree" "$dir"
