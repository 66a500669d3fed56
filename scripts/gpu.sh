#!/usr/bin/env bash
# Runs the bundle on this machine if it has a GPU: scripts/gpu.sh test|bench BUNDLE LIBTORCH CUDA_LIBRARIES
set -euo pipefail
usage="usage: scripts/gpu.sh test|bench BUNDLE LIBTORCH CUDA_LIBRARIES"
what=${1:?$usage} bundle=${2:?$usage} libtorch=${3:?$usage} libraries=${4:?$usage}
if [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ]; then
  echo "$what-gpu: SKIPPED: this machine has no NVIDIA device (/dev/nvidiactl)"
  exit 0
fi
"$(dirname "$0")/cuda-libraries.sh" "$libraries"
# One folder, as in the image: libtorch searches its own folder for its CUDA part.
together=$(mktemp -d)
trap 'rm -rf "$together"' EXIT
ln -s "$libraries"/lib/* "$libtorch"/lib/lib{torch_cpu,c10}.so "$libtorch"/lib/libgomp* "$libtorch"/lib/libcu*.so.* "$together/"
DATJOB_REQUIRE_GPU=1 LIBRARIES="$together" "$bundle/run.sh" "$what"
