#!/bin/bash
# Runs go with the flags of this module: go.sh build|test|vet ...
#
# Packages compiled with other flags are compiled again, and Kubernetes takes
# minutes. Without DWARF it takes a sixth less; the binary is stripped anyway.
set -euo pipefail
export CGO_ENABLED=0
export GOFLAGS="${GOFLAGS:-} -trimpath -gcflags=all=-dwarf=false"
exec go "$@"
