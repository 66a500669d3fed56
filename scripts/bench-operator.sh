#!/usr/bin/env bash
# Measures the operator with many jobs on clusters of this machine: scripts/bench-operator.sh CLUSTER_BINARY OPERATOR SCALE LWS_DIR WORK_DIR [OPTION…]
# SCALE is the program datjob-scale, LWS_DIR the output of scripts/lws.sh, WORK_DIR gets logs and kubeconfigs; options are those of
# `datjob-scale run`. Requires root. Fails if a cluster is up: each round starts a new one.
set -euo pipefail
fail() { echo "bench-operator: $*" >&2; exit 1; }
usage="usage: scripts/bench-operator.sh CLUSTER_BINARY OPERATOR SCALE LWS_DIR WORK_DIR [OPTION…]"
cluster=${1:?$usage}
operator=${2:?$usage}
scale=${3:?$usage}
lws=${4:?$usage}
work=${5:?$usage}
shift 5
cd "$(dirname "$0")/.."
# The state directory of another cluster is not this one: `down` refuses to remove it.
state=/var/lib/datjob-scale
[ "$(id -u)" = 0 ] || fail "run as root; the cluster needs it"
[ ! -e /run/datjob-cluster.json ] || fail "a cluster is up on this machine ($(cat /run/datjob-cluster.json)); stop it with: $cluster down"
trap '"$cluster" --dir "$state" down > /dev/null' EXIT
"$scale" run --cluster "$cluster" --cluster-directory "$state" --operator "$operator" --lws "$lws" --work "$work" "$@"
