#!/usr/bin/env bash
# Installs this checkout's operator in a cluster: scripts/install.sh CLUSTER_BINARY IMAGES_DIR [HELM_VALUE…]
# If KUBECONFIG is set, uses that cluster; pushes the images to REGISTRY (a prefix), or loads them if the cluster is kind.
# Otherwise uses the cluster of this machine, and starts it if necessary.
# Prints its progress; the last line of standard output is the path of the kubeconfig.
set -euo pipefail
say() { echo "==> $*" >&2; }
fail() { echo "install: $*" >&2; exit 1; }
cluster=${1:?usage: scripts/install.sh CLUSTER_BINARY IMAGES_DIR [HELM_VALUE…]}
images=${2:?usage: scripts/install.sh CLUSTER_BINARY IMAGES_DIR [HELM_VALUE…]}
shift 2
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
archives=("$images"/operator.tar "$images"/trainer.tar "$images"/fashion-mnist.tar)
registry=localhost/datjob

if [ -n "${KUBECONFIG:-}" ]; then
  context=$("$cluster" kubectl config current-context) || fail "KUBECONFIG=$KUBECONFIG has no current context"
  say "Using the cluster $context of $KUBECONFIG"
  if [ -n "${REGISTRY:-}" ]; then
    registry=$REGISTRY
    say "Pushing the images to $registry"
    PUSH=1 scripts/images.sh "$images" >&2
  elif [[ $context == kind-* ]]; then
    say "Loading the images into kind"
    for archive in "${archives[@]}"; do kind load image-archive --name "${context#kind-}" "$archive" >&2; done
  else
    fail "REGISTRY is not set; set it to a prefix (registry.example.com/team) that this machine can push to and $context can pull from"
  fi
else
  say "Starting a Kubernetes on this machine"
  # The audit log of the operator's requests: `datjob-scale check` reads it.
  "$cluster" up --audit-group system:serviceaccounts:datjob-system >&2
  KUBECONFIG=$("$cluster" kubeconfig --path)
  export KUBECONFIG
  say "Loading the images"
  "$cluster" load-image "${archives[@]}" >&2
fi

say "helm install: the operator, with its CRD"
values=(--set "image.repository=$registry/operator,trainerImage.repository=$registry/trainer")
for value; do values+=(--set "$value"); done
"$cluster" kubectl create namespace datjob-system --dry-run=client -o yaml | "$cluster" kubectl apply -f - > /dev/null
"$cluster" kubectl label --overwrite namespace datjob-system pod-security.kubernetes.io/enforce=restricted > /dev/null
# The image's name does not contain its digest. The annotation makes a new build of the same version replace the running pod.
"$cluster" helm upgrade --install datjob charts/datjob --namespace datjob-system --wait --timeout 3m "${values[@]}" \
  --set-string "podAnnotations.datjob\.io/build=$(sha256sum "$images/operator.tar" | cut -c 1-16)" > /dev/null
say "The operator $version runs in the namespace datjob-system"
echo "$KUBECONFIG"
