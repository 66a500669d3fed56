#!/bin/bash
# Runs go in this module, with its flags: go.sh build|test|vet ...
#
# Packages compiled with other flags are compiled again, and Kubernetes takes
# minutes. Without DWARF it takes a sixth less; the binary is stripped anyway.
set -euo pipefail
cd "$(dirname "$0")"
export CGO_ENABLED=0
export GOFLAGS="${GOFLAGS:-} -trimpath -gcflags=all=-dwarf=false"
exec go "$@"
