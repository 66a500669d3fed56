#!/usr/bin/env bash
# Runs the end-to-end tests, or those whose name contains a FILTER: scripts/e2e.sh CLUSTER_BINARY IMAGES_DIR [FILTER...]
# KUBECONFIG and REGISTRY: see scripts/install.sh. Stops the cluster of this machine afterwards unless it was up before.
set -euo pipefail
cluster=${1:?usage: scripts/e2e.sh CLUSTER_BINARY IMAGES_DIR}
images=${2:?usage: scripts/e2e.sh CLUSTER_BINARY IMAGES_DIR}
shift 2
cd "$(dirname "$0")/.."
if [ -z "${KUBECONFIG:-}" ] && ! "$cluster" status > /dev/null 2>&1; then
  trap '"$cluster" down' EXIT
fi
KUBECONFIG=$(scripts/install.sh "$cluster" "$images")
export KUBECONFIG
export DATJOB_E2E_KUBECTL="$cluster kubectl" DATJOB_E2E_HELM="$cluster helm"
export DATJOB_E2E_REGISTRY="${REGISTRY:-localhost/datjob}"
# Two at a time: one test trains while the other creates or removes its pods.
cargo test --release -p datjob-e2e -- --test-threads=2 "$@"
