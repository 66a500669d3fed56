#!/usr/bin/env bash
# Installs missing prerequisites of the build, the images and the demo's cluster: scripts/prerequisites.sh
# Requires Debian 12, root, and an installed Rust (rustup.rs) and Go (go.dev). On other systems it lists what is missing.
# Does not start services.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { echo "prerequisites: $*" >&2; }

if [ "$(uname -sm)" != "Linux x86_64" ]; then
  say "unsupported platform $(uname -sm); libtorch's wheel requires Linux on x86-64"
  exit 1
fi

packages=() # to install, by Debian package name
programs=() # the same, for users of other systems
need() { # PACKAGE WHAT TEST...
  local package=$1 what=$2
  shift 2
  "$@" > /dev/null 2>&1 || { packages+=("$package"); programs+=("$what"); }
}
has() { command -v "$1"; }
static_busybox() { [ -x /bin/busybox ] && ! ldd /bin/busybox; }
python_has() { python3 -c "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))" "$@"; }

look() {
  packages=() programs=()
  need g++ "a C++ compiler (g++)" has g++
  need make make has make
  need cmake cmake has cmake
  need nasm "the assembler nasm" has nasm
  need ca-certificates "CA certificates" test -e /etc/ssl/certs/ca-certificates.crt
  need python3 "Python 3" has python3
  # Starts Python only once if nothing is missing.
  if ! python_has pip yaml > /dev/null 2>&1; then
    need python3-pip "pip" python_has pip
    need python3-yaml "PyYAML" python_has yaml
  fi
  need buildah buildah has buildah
  need shellcheck shellcheck has shellcheck
  # Tests and benchmarks count and limit the traffic of a private network namespace.
  need iproute2 "ip and tc (iproute2)" has tc
  need busybox-static "a static busybox in /bin" static_busybox
  need dataset-fashion-mnist "the files of Fashion-MNIST in /usr/share/datasets/fashion-mnist" \
    test -e /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz
}

has cargo > /dev/null || say "cargo is missing: install Rust from https://rustup.rs"
has go > /dev/null || say "go is missing: install Go $(sed -n 's/^go //p' e2e/cluster/go.mod 2> /dev/null) or newer from https://go.dev/dl"

look
cluster=e2e/cluster/prerequisites.sh
if ! has apt-get > /dev/null; then
  if [ ${#programs[@]} -gt 0 ]; then
    say "apt-get not found; install manually:$(printf ' %s,' "${programs[@]}" | sed 's/,$//')"
  fi
  for program in containerd runc nft iptables ip; do
    has "$program" > /dev/null || say "$program is missing; the cluster of make demo needs it (make demo with KUBECONFIG does not start that cluster)"
  done
  exit 0
fi

# Debian starts a service when its package is installed, unless this file forbids it. The file exists while this script
# runs. Its second line identifies it if a run was killed.
policy=/usr/sbin/policy-rc.d
mark='# scripts/prerequisites.sh of DatJob: no services'
ours() { [ -e "$policy" ] && [ "$(sed -n 2p "$policy" 2> /dev/null)" = "$mark" ]; }
forbid_services() {
  if [ "$(id -u)" = 0 ] && { [ ! -e "$policy" ] || ours; }; then
    trap 'rm -f "$policy" "${log:-}"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" > "$policy"
    chmod +x "$policy"
  fi
}

if ours; then forbid_services; fi

if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    say "run as root, or install first: apt-get install --no-install-recommends ${packages[*]}"
    exit 1
  fi
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  forbid_services
  say "installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
  if ! { "${apt[@]}" update && "${apt[@]}" install --yes --no-install-recommends "${packages[@]}"; } > "$log" 2>&1 < /dev/null; then
    tail -n 20 "$log" >&2
    say "apt-get failed"
    exit 1
  fi
  look
  if [ ${#programs[@]} -gt 0 ]; then
    say "installed, but not found:$(printf ' %s,' "${programs[@]}" | sed 's/,$//'); is another python3 or busybox first in PATH?"
    exit 1
  fi
fi

if [ -x "$cluster" ]; then
  "$cluster" | sed '/^All prerequisites are installed\.$/d' >&2
fi
