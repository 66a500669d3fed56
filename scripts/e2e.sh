#!/usr/bin/env bash
# Runs the end-to-end tests, or those whose name contains a FILTER: scripts/e2e.sh CLUSTER_BINARY IMAGES_DIR [FILTER...]
# KUBECONFIG and REGISTRY: see scripts/install.sh. Stops the cluster of this machine afterwards unless it was up before.
# SCALE, the program datjob-scale, counts the API calls for 300 jobs after a whole run on the cluster of this machine.
set -euo pipefail
cluster=${1:?usage: scripts/e2e.sh CLUSTER_BINARY IMAGES_DIR}
images=${2:?usage: scripts/e2e.sh CLUSTER_BINARY IMAGES_DIR}
shift 2
cd "$(dirname "$0")/.."
external=${KUBECONFIG:+yes}
if [ -z "${KUBECONFIG:-}" ] && ! "$cluster" status > /dev/null 2>&1; then
  trap '"$cluster" down' EXIT
fi
KUBECONFIG=$(scripts/install.sh "$cluster" "$images")
export KUBECONFIG
export DATJOB_E2E_KUBECTL="$cluster kubectl" DATJOB_E2E_HELM="$cluster helm"
export DATJOB_E2E_REGISTRY="${REGISTRY:-localhost/datjob}"
# Two at a time: one test trains while the other creates or removes its pods.
cargo test --release -p datjob-e2e -- --test-threads=2 "$@"
# Only the cluster of this machine has an audit log. A job needs nine calls: five children, two events, two statuses.
if [ $# = 0 ] && [ -z "$external" ] && [ -n "${SCALE:-}" ]; then
  "$SCALE" check --cluster "$cluster" --jobs 300 --max-calls-per-job 13 --max-idle-calls 10
fi
