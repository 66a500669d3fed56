#!/usr/bin/env bash
# Starts a cluster, installs the operator and runs a DatJob to its accuracies: scripts/demo.sh CLUSTER_BINARY IMAGES_DIR
# KUBECONFIG and REGISTRY: see scripts/install.sh.
set -euo pipefail
say() { echo "==> $*"; }
cluster=${1:?usage: scripts/demo.sh CLUSTER_BINARY IMAGES_DIR}
images=${2:?usage: scripts/demo.sh CLUSTER_BINARY IMAGES_DIR}
cd "$(dirname "$0")/.."
own=${KUBECONFIG:+no}
KUBECONFIG=$(scripts/install.sh "$cluster" "$images")
export KUBECONFIG
namespace=datjob-demo
kubectl() { "$cluster" kubectl -n "$namespace" "$@"; }
field() { kubectl get datjob fashion-mnist -o "jsonpath={$1}"; }

"$cluster" kubectl create namespace "$namespace" --dry-run=client -o yaml | "$cluster" kubectl apply -f - > /dev/null
"$cluster" kubectl label --overwrite namespace "$namespace" pod-security.kubernetes.io/enforce=restricted > /dev/null
kubectl delete datjob fashion-mnist --ignore-not-found --wait > /dev/null
kubectl wait --for=delete pod -l datjob.io/job-name=fashion-mnist --timeout=120s > /dev/null 2>&1 || true

say "kubectl apply -f examples/fashion-mnist.yaml"
sed "s#localhost/datjob/#${REGISTRY:-localhost/datjob}/#" examples/fashion-mnist.yaml | kubectl apply -f -

say "Training on two pods, then evaluating on 10,000 test images (some minutes)"
started=$SECONDS
last=
while true; do
  line=$(kubectl get datjob fashion-mnist -o jsonpath='{.status.state}  epoch {.status.epoch} {.status.progress.percent}%  clean {.status.clean}  robust {.status.robust}  {.status.split}' | sed 's/ %  / /')
  if [ "$line" != "$last" ]; then
    printf '    %4d s  %s\n' "$((SECONDS - started))" "$line"
    last=$line
  fi
  finished=$(field '.status.conditions[?(@.type=="Finished")].status')
  [ "$finished" = True ] && break
  if [ $((SECONDS - started)) -gt 3600 ]; then
    kubectl describe datjob fashion-mnist
    echo "demo: the job did not finish within an hour" >&2
    exit 1
  fi
  sleep 2
done

say "kubectl get datjobs"
kubectl get datjobs
say "Results"
kubectl get datjob fashion-mnist -o jsonpath='{range .status.conditions[?(@.type=="Finished")]}{.message}{"\n"}{end}{range .status.results.attacks[*]}    {.name}: {.correct} of {.total} test images stay correct ({.percent} %){"\n"}{end}'
if [ "$(field '.status.conditions[?(@.type=="Complete")].status')" != True ]; then
  kubectl describe datjob fashion-mnist
  exit 1
fi
cat <<TXT

Explore:
    export KUBECONFIG=$KUBECONFIG
    alias kubectl="$cluster kubectl" helm="$cluster helm"
    kubectl -n $namespace describe datjob fashion-mnist
    kubectl explain datjob.spec.training
TXT
if [ -z "$own" ]; then echo "Stop the cluster and remove its files: make clean"; fi
