#!/usr/bin/env bash
# Packages the GPU tests and the GPU benchmark into a folder for another machine: scripts/gpu-bundle.sh DIR TRAINER PLUGIN
# There, an installed PyTorch provides libtorch 2.11 and its CUDA libraries.
set -euo pipefail
dir=${1:?usage: scripts/gpu-bundle.sh DIR TRAINER PLUGIN}
trainer=${2:?usage: scripts/gpu-bundle.sh DIR TRAINER PLUGIN}
plugin=${3:?usage: scripts/gpu-bundle.sh DIR TRAINER PLUGIN}
cd "$(dirname "$0")/.."
built() { # TARGET ARGUMENTS…: builds with cargo and prints the path of the target's program
  target=$1
  shift
  cargo "$@" --workspace --exclude datjob-fuzz --exclude datjob-e2e --message-format=json | python3 -c '
import json, sys
artifacts = [m for m in map(json.loads, sys.stdin) if m["reason"] == "compiler-artifact"]
[program] = [m["executable"] for m in artifacts if m["target"]["name"] == sys.argv[1]]
print(program)' "$target"
}
tests=$(built gpu test --release --test gpu --no-run)
bench=$(built gpu_step bench --bench gpu_step --no-run)
rm -rf "$dir"
mkdir -p "$dir/bin" "$dir/lib"
strip -o "$dir/bin/gpu-tests" "$tests"
strip -o "$dir/bin/gpu-bench" "$bench"
strip -o "$dir/bin/dat-trainer" "$trainer"
cp "$plugin" "$dir/lib/libdatjob_cuda.so"
cp trainer/benches/pytorch_step.py "$dir/pytorch_step.py"
cp scripts/gpu-bundle-run.sh "$dir/run.sh"
echo "The GPU tests and the benchmark are in $dir ($(du -sh "$dir" | cut -f 1)): copy it to the GPU machine and run run.sh test or run.sh bench there."
