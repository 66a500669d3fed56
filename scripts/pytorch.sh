#!/usr/bin/env bash
# Prints the path of a Python with PyTorch, for the comparison in `make bench`: scripts/pytorch.sh
# Uses $PYTHON, or the first of the usual ones that can import torch; otherwise installs Debian's package (CPU).
set -euo pipefail
has_torch() { "$1" -c 'import torch.distributed, sys; sys.exit(not torch.distributed.is_available())' > /dev/null 2>&1; }
for python in ${PYTHON:-python3 /usr/bin/python3}; do
  if has_torch "$python"; then
    command -v "$python"
    exit 0
  fi
done
if [ -n "${PYTHON:-}" ]; then
  echo "pytorch: PYTHON=$PYTHON cannot import torch.distributed" >&2
  exit 1
fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
  echo "pytorch: no Python with PyTorch found; install PyTorch and set PYTHON to that Python" >&2
  exit 1
fi
echo "pytorch: installing Debian's python3-torch" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
if ! { "${apt[@]}" update && "${apt[@]}" install --yes --no-install-recommends python3-torch; } > "$log" 2>&1 < /dev/null; then
  tail -n 20 "$log" >&2
  exit 1
fi
has_torch /usr/bin/python3 || { echo "pytorch: Debian's python3-torch is installed, but /usr/bin/python3 cannot import it" >&2; exit 1; }
echo /usr/bin/python3
