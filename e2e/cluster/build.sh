#!/bin/bash
# Builds the binary `cluster` (and the pause program in it): build.sh OUT_DIR
#
# The first build downloads and compiles Kubernetes, which takes minutes; later
# ones take seconds, and nothing is done where no source has changed. Go keeps
# what it needs in its own caches, outside the checkout.
set -euo pipefail

if [ $# -ne 1 ]; then
	echo "usage: $0 OUT_DIR" >&2
	exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"

if ! command -v go >/dev/null; then
	echo "$0: go is missing: install Go $(sed -n 's/^go //p' go.mod) or newer." >&2
	exit 1
fi

hash=$({
	go version
	find . -type f \( -name '*.go' -o -name go.mod -o -name go.sum -o -name build.sh -o -name go.sh \) ! -name '*_test.go' -print0 |
		LC_ALL=C sort -z | xargs -0 sha256sum
} | sha256sum | cut -d' ' -f1)
if [ -x "$out/cluster" ] && [ -x "$out/pause" ] && [ "$(cat "$out/.cluster-hash" 2>/dev/null)" = "$hash" ]; then
	echo "$out/cluster is up to date."
	exit 0
fi

echo "==> Building Kubernetes, kubectl and helm in one binary (the first time: some 10 minutes)"

# The pause image holds nothing but its program, which is static (go.sh).
./go.sh build -ldflags '-s -w' -o "$out/pause" ./pause

# Without them /version says v0.0.0, and Helm refuses charts with a kubeVersion.
module_version() { sed -n "s|^	$1 \(v[^ ]*\).*|\1|p" go.mod; }
kubernetes=$(module_version k8s.io/kubernetes)
helm=$(module_version helm.sh/helm/v4)
IFS=. read -r major minor _ <<<"${kubernetes#v}"
base=k8s.io/component-base/version
ldflags="-s -w -X $base.gitVersion=$kubernetes -X $base.gitMajor=$major -X $base.gitMinor=$minor"
ldflags="$ldflags -X $base.gitTreeState=clean -X $base.buildDate=1970-01-01T00:00:00Z"
ldflags="$ldflags -X helm.sh/helm/v4/internal/version.version=$helm"

overlay=$(mktemp)
trap 'rm -f "$overlay"' EXIT
echo "{\"Replace\":{\"$PWD/internal/image/built/pause\":\"$out/pause\"}}" >"$overlay"
# To a new file: a cluster that runs from the old one goes on.
nice ./go.sh build -overlay "$overlay" -ldflags "$ldflags" -o "$out/cluster.new" .
mv "$out/cluster.new" "$out/cluster"
echo "$hash" >"$out/.cluster-hash"
echo "Built $out/cluster."
