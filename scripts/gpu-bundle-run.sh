#!/usr/bin/env bash
# Runs the GPU tests or the GPU benchmark of this folder: run.sh test [NAME…] | run.sh bench [IMAGES…]
#   LIBRARIES  a folder with libtorch 2.11 and its CUDA libraries; by default, the one in the PyTorch of $PYTHON (python3)
#   PYTHON     a Python with PyTorch 2.11, for the libraries and for the comparison
set -euo pipefail
what=${1:?usage: run.sh test [NAME…] | run.sh bench [IMAGES…]}
shift
cd "$(dirname "$0")"
python=${PYTHON:-python3}
has_torch() { "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' 2> /dev/null; }
if [ -z "${LIBRARIES:-}" ]; then
  has_torch || { echo "run.sh: $python has no PyTorch; set PYTHON to a Python with PyTorch 2.11, or LIBRARIES to libtorch's folder" >&2; exit 1; }
  LIBRARIES=$("$python" -c 'import importlib.util as u, os; print(os.path.join(u.find_spec("torch").submodule_search_locations[0], "lib"))')
fi
export LD_LIBRARY_PATH="$LIBRARIES" DATJOB_CUDA_PLUGIN="$PWD/lib/libdatjob_cuda.so" DATJOB_TRAINER="$PWD/bin/dat-trainer"
case $what in
  test) exec bin/gpu-tests --nocapture --test-threads=1 "$@" ;;
  bench)
    if has_torch; then export DATJOB_BENCH_PYTHON="$python" DATJOB_BENCH_SCRIPT="$PWD/pytorch_step.py"; fi
    exec bin/gpu-bench "$@"
    ;;
  *) echo "usage: run.sh test [NAME…] | run.sh bench [IMAGES…]" >&2; exit 2 ;;
esac
