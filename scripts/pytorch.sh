#!/usr/bin/env bash
# Prints the path of a Python with PyTorch 2.11.0, the version of our libtorch: scripts/pytorch.sh DIR
# `make bench` compares with it. Uses $PYTHON if set; otherwise creates a virtual environment in DIR (4.7 GB, most of it CUDA:
# the Python package index has no smaller build for x86-64).
set -euo pipefail
dir=${1:?usage: scripts/pytorch.sh DIR}
version=2.11.0
check='import sys, torch, torch.distributed, numpy, PIL
sys.exit(0 if torch.__version__.split("+")[0] == sys.argv[1] and torch.distributed.is_available() else f"PyTorch {torch.__version__}")'

python=${PYTHON:-$dir/bin/python}
if [ -z "${PYTHON:-}" ] && ! "$python" -c "$check" "$version" > /dev/null 2>&1; then
  echo "pytorch: installing PyTorch $version into $dir (4.7 GB; takes some minutes)" >&2
  rm -rf "$dir"
  # Debian installs no pip into virtual environments by default; the pip outside installs into this one.
  python3 -m venv --without-pip "$dir"
  python3 -m pip --python "$python" install --quiet --disable-pip-version-check --no-cache-dir --only-binary=:all: \
    "torch==$version" numpy==2.4.6 pillow==13.0.0 >&2
fi
if ! reason=$("$python" -c "$check" "$version" 2>&1); then
  echo "pytorch: $python must have PyTorch $version with torch.distributed, numpy and Pillow; got: ${reason##*$'\n'}" >&2
  exit 1
fi
echo "$python"
