#!/usr/bin/env bash
# Builds LeaderWorkerSet from its Go module: scripts/lws.sh OUT_DIR
# Writes the binary lws and its CustomResourceDefinition crd.yaml. The version is in e2e/scale/lws/go.mod.
set -euo pipefail
mkdir -p "${1:?usage: scripts/lws.sh OUT_DIR}"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/../e2e/scale/lws"
hash=$({ go version; sha256sum go.mod go.sum; } | sha256sum | cut -d ' ' -f 1)
if [ -x "$out/lws" ] && [ "$(cat "$out/hash" 2> /dev/null)" = "$hash" ]; then exit 0; fi
echo "==> Building LeaderWorkerSet (some minutes)"
# The flags of e2e/cluster/go.sh, so that both share Go's build cache.
CGO_ENABLED=0 nice go build -trimpath -gcflags=all=-dwarf=false -ldflags '-s -w' -o "$out/lws" sigs.k8s.io/lws/cmd
module=$(go list -m -f '{{.Dir}}' sigs.k8s.io/lws)
install -m 644 "$module/config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml" "$out/crd.yaml"
echo "$hash" > "$out/hash"
