#!/usr/bin/env bash
# Downloads the CUDA libraries that libtorch 2.11.0 needs at run time into DIR (3 GB): scripts/cuda-libraries.sh DIR
# They come from the wheels of `pip install torch==2.11.0`, without Python, Triton and libraries only for linear algebra.
set -euo pipefail
dir=${1:?usage: scripts/cuda-libraries.sh DIR}
version="libtorch 2.11.0, cuda 13.0"
[ "$(cat "$dir/libraries-version" 2>/dev/null)" = "$version" ] && exit 0

echo "CUDA libraries: downloading (about 2.4 GB) into $dir"
mkdir -p "$(dirname "$dir")"
# Next to DIR, because the machine's temporary directory may be small.
work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT
cat > "$work/requirements.txt" <<'REQUIREMENTS'
torch==2.11.0 --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
nvidia-cublas==13.1.0.3 --hash=sha256:ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171
nvidia-cuda-nvrtc==13.0.88 --hash=sha256:ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575
nvidia-cudnn-cu13==9.19.0.56 --hash=sha256:d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf
nvidia-cufft==12.0.0.61 --hash=sha256:6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3
nvidia-cufile==1.15.1.6 --hash=sha256:08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44
nvidia-curand==10.4.0.35 --hash=sha256:1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc
nvidia-cusparse==12.6.3.3 --hash=sha256:2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b
nvidia-cusparselt-cu13==0.8.0 --hash=sha256:25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd
nvidia-nccl-cu13==2.28.9 --hash=sha256:e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42
nvidia-nvjitlink==13.0.88 --hash=sha256:13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b
nvidia-nvshmem-cu13==3.4.5 --hash=sha256:290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80
REQUIREMENTS
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
  --python-version 3.11 --implementation cp --abi cp311 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
  --platform manylinux_2_18_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --platform manylinux_2_12_x86_64 --platform manylinux2010_x86_64 -d "$work/wheels" -r "$work/requirements.txt"

python3 - "$work/wheels" "$work/tree" <<'PYTHON'
import pathlib, shutil, sys, zipfile
wheels, tree = map(pathlib.Path, sys.argv[1:])
torch = {"libtorch_cuda.so", "libc10_cuda.so", "libtorch_nvshmem.so", "libcaffe2_nvrtc.so"}
# Alternatives, and transports that need additional software.
unused = ("libnvrtc.alt", "libnvrtc-builtins.alt", "libcufftw", "libnvblas", "libcufile_rdma", "nvshmem_")
for wheel in wheels.iterdir():
    with zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            base = name.rsplit("/", 1)[-1]
            if ".dist-info/licenses/" in name and base:
                target = tree / "licenses" / name.split("-", 1)[0] / base
            elif name.startswith("torch/lib/") and base in torch:
                target = tree / "lib" / base
            elif name.startswith("nvidia/") and ".so" in base and not base.startswith(unused):
                target = tree / "lib" / base
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with z.open(name) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
PYTHON
echo "$version" > "$work/tree/libraries-version"
rm -rf "$dir"
mv "$work/tree" "$dir"
