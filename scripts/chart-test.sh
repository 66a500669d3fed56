#!/usr/bin/env bash
# Checks the chart without a cluster: scripts/chart-test.sh [HELM_BINARY]
# HELM may hold a command with arguments instead: HELM="path/to/cluster helm" scripts/chart-test.sh
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then helm=("$1"); else read -r -a helm <<< "${HELM:-helm}"; fi
command -v "${helm[0]}" > /dev/null || { echo "chart-test: ${helm[0]} not found; set HELM to Helm 4" >&2; exit 2; }
python3 -c 'import yaml' 2> /dev/null || { echo "chart-test: python3-yaml is missing; run scripts/prerequisites.sh" >&2; exit 2; }

work=$(mktemp -d "${TMPDIR:-/tmp}/chart-test.XXXXXX")
trap 'rm -rf "$work"' EXIT
chart=charts/datjob
mkdir "$work/rendered"

# Ignore the machine's Helm configuration and cluster.
export HELM_CACHE_HOME=$work/cache HELM_CONFIG_HOME=$work/config HELM_DATA_HOME=$work/data KUBECONFIG=$work/none

cmp -s crds/datjob.yaml "$chart/files/datjob-crd.yaml" || { echo "chart-test: the chart's CRD is stale; run make generate" >&2; exit 1; }

"${helm[@]}" lint --strict --quiet "$chart" || { echo "chart-test: helm lint failed" >&2; exit 1; }

cat > "$work/values.yaml" <<'VALUES'
replicas: 3
image: {repository: registry.example.com:5000/datjob/operator, tag: v9.9.9-rc.1, pullPolicy: Always}
trainerImage: {repository: registry.example.com/datjob/trainer, tag: "9"}
gpu: {enabled: true, trainerImage: {repository: registry.example.com/datjob/trainer-cuda, tag: "9"}}
imagePullSecrets: [{name: registry}]
crds: {keep: false}
watch: {namespace: team-a}
logLevel: info,datjob_operator=debug
serviceAccount: {name: own-account, annotations: {example.com/role: operator}}
metrics:
  serviceMonitor: {enabled: true, interval: 1m, labels: {release: prometheus}}
  prometheusRule: {enabled: true, labels: {release: prometheus}}
networkPolicy: {apiServerPorts: [8443]}
resources: {requests: {cpu: 1, memory: 64Mi}, limits: {cpu: "2", memory: 0.5Gi}}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: control-plane, operator: Exists, effect: NoSchedule}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}
priorityClassName: system-cluster-critical
podAnnotations: {example.com/a: "1"}
podLabels: {example.com/b: "2", app.kubernetes.io/name: must-not-win}
fullnameOverride: robust
VALUES

render() { # NAME ARGUMENT...
  local name=$1
  shift
  "${helm[@]}" template datjob "$chart" --namespace datjob-system --kube-version 1.33.0 "$@" > "$work/rendered/$name.yaml" ||
    { echo "chart-test: the chart does not render with: $*" >&2; exit 1; }
}
refused() { # FIELD ARGUMENT...: Helm must reject the values and name the field
  local field=$1 answer
  shift
  if answer=$("${helm[@]}" template datjob "$chart" "$@" 2>&1 > /dev/null); then
    echo "chart-test: accepted invalid values: $*" >&2
    exit 1
  fi
  case $answer in
    *"$field"*) ;;
    *) echo "chart-test: the error does not name $field: $*"$'\n'"$answer" >&2; exit 1 ;;
  esac
}

render default
render no-crd --set crds.enabled=false
render no-keep --set crds.keep=false
render namespaced --set watch.namespace=team-a
render two --set replicas=2
render two-no-pdb --set replicas=2 --set podDisruptionBudget.enabled=false
render bare --set rbac.create=false --set rbac.aggregate=false --set serviceAccount.create=false \
  --set networkPolicy.enabled=false --set metrics.serviceMonitor.enabled=true --set metrics.prometheusRule.enabled=true
render all --api-versions monitoring.coreos.com/v1 --values "$work/values.yaml"
render global --set global.anything=1

refused /replicas --set-string replicas=two
refused /replicas --set replicas=-1
refused "'replica'" --set replica=2
refused /image --set image.pullPolcy=Always
refused /image/pullPolicy --set image.pullPolicy=Sometimes
refused /image/repository --set image.repository=operator:latest
refused /image/tag --set image.tag="a b"
refused /gpu/enabled --set gpu.enabled=maybe
refused /trainerImage --set trainerImage.name=x
refused /crds/keep --set crds.keep=maybe
refused /watch/namespace --set watch.namespace=Team_A
refused /logLevel --set logLevel=loud
refused /rbac --set rbac.clusterAdmin=true
refused /resources/limits/memory --set resources.limits.memory=1GB
refused /networkPolicy/apiServerPorts --set 'networkPolicy.apiServerPorts={0}'
refused /metrics/serviceMonitor/interval --set metrics.serviceMonitor.interval=often
refused /metrics/prometheusRule/labels --set metrics.prometheusRule.labels.severity=1
refused /tolerations/0 --set 'tolerations[0].effekt=NoSchedule'
refused /imagePullSecrets/0 --set 'imagePullSecrets={registry}'
refused "kubeVersion" --kube-version 1.32.9

python3 - "$work/rendered" "$chart/files/datjob-crd.yaml" <<'PYTHON'
import pathlib, re, sys, yaml

rendered, crd_file = map(pathlib.Path, sys.argv[1:])
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
cases = {p.stem: [d for d in yaml.load_all(p.read_text(), Loader) if d] for p in rendered.glob("*.yaml")}
original = yaml.load(crd_file.read_text(), Loader)
failures = []


def check(ok, case, sentence):
    if not ok:
        failures.append(f"{case}: {sentence}")


def of_kind(case, kind):
    return [d for d in cases[case] if d["kind"] == kind]


def crd(case):
    return next(iter(of_kind(case, "CustomResourceDefinition")), None)


def rules(case):
    return [(d, r) for d in cases[case] if d["kind"] in ("Role", "ClusterRole") for r in d["rules"]]


def environment(case):
    container = of_kind(case, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container["env"]}


for case, documents in cases.items():
    names = [(d["apiVersion"], d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents]
    check(len(set(names)) == len(names), case, f"duplicate object: {names}")
    for d in documents:
        what = f"{d['kind']} {d['metadata']['name']}"
        labels = d["metadata"].get("labels", {})
        check(labels.get("app.kubernetes.io/part-of") == "datjob", case, f"{what} lacks the chart's labels")
        check(all(isinstance(v, str) for v in labels.values()), case, f"{what} has a label that is not a string")

    # Pod Security: restricted.
    for d in documents:
        pod = d.get("spec", {}).get("template", {}).get("spec") if d["kind"] != "CustomResourceDefinition" else None
        if not pod:
            continue
        for field in ("hostNetwork", "hostPID", "hostIPC", "volumes"):
            check(field not in pod, case, f"{field} is set")
        check(pod["securityContext"]["runAsNonRoot"] is True, case, "runAsNonRoot is not set")
        check(pod["securityContext"]["runAsUser"] == 65532, case, "runAsUser is not 65532")
        check(pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, case, "no seccomp profile")
        for container in pod["containers"] + pod.get("initContainers", []):
            expected = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            check(container["securityContext"] == expected, case, f"container {container['name']} is not restricted")
            check("limits" in container["resources"], case, f"container {container['name']} has no limits")

    # Permissions: no secrets, no wildcards, no privilege escalation.
    for role, rule in rules(case):
        name = role["metadata"]["name"]
        words = rule["apiGroups"] + rule["resources"] + rule["verbs"]
        check("*" not in words, case, f"{name} has a wildcard")
        for resource in ("secrets", "serviceaccounts/token", "pods/exec", "nodes"):
            check(resource not in rule["resources"], case, f"{name} has access to {resource}")
        check(not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), case, f"{name} can escalate privileges")
        if "leases" in rule["resources"]:
            check(role["kind"] == "Role" and role["metadata"]["namespace"] == "datjob-system", case, "Lease outside the release's namespace")
    for binding in (d for d in documents if d["kind"] in ("RoleBinding", "ClusterRoleBinding")):
        kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
        there = [d for d in of_kind(case, kind) if d["metadata"]["name"] == name]
        check(there and there[0]["metadata"].get("namespace") == binding["metadata"].get("namespace"), case, f"{name} binds a role that is not in the chart")

    # Selectors match the operator's pods.
    deployment = of_kind(case, "Deployment")[0]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [d["spec"]["selector"] for d in of_kind(case, "Service")]
    selectors += [d["spec"]["podSelector"]["matchLabels"] for d in of_kind(case, "NetworkPolicy")]
    selectors += [d["spec"]["selector"]["matchLabels"] for d in of_kind(case, "PodDisruptionBudget")]
    for selector in selectors:
        check(selector.items() <= labels.items(), case, f"{selector} does not select the operator")
    for name in ("DATJOB_NAME", "DATJOB_TRAINER_IMAGE", "DATJOB_WATCH_NAMESPACE", "DATJOB_LEADER_ELECTION", "DATJOB_LOG", "POD_NAME", "POD_NAMESPACE"):
        check(name in environment(case), case, f"the operator has no environment variable {name}")

    # The CRD equals the generated one, except for the chart's labels and annotations.
    if crd(case):
        check(crd(case)["spec"] == original["spec"], case, "the CRD differs from files/datjob-crd.yaml")
    kept = (crd(case) or {}).get("metadata", {}).get("annotations", {}).get("helm.sh/resource-policy")
    check(kept == (None if case in ("no-crd", "no-keep", "all") else "keep"), case, f"the CRD has resource-policy {kept}")
    check((crd(case) is None) == (case == "no-crd"), case, "the presence of the CRD contradicts crds.enabled")
    check((len(of_kind(case, "PodDisruptionBudget")) == 1) == (case in ("two", "all")), case, "PodDisruptionBudget")
    check((len(of_kind(case, "NetworkPolicy")) == 1) == (case != "bare"), case, "NetworkPolicy")
    check((len(of_kind(case, "ServiceMonitor")) == 1) == (case == "all"), case, "ServiceMonitor")
    check((len(of_kind(case, "PrometheusRule")) == 1) == (case == "all"), case, "PrometheusRule")

    # The operator may write the Lease that its name determines.
    name = environment(case)["DATJOB_NAME"]
    check(name == deployment["metadata"]["name"], case, f"the installation is named {name}")
    leases = [r["resourceNames"] for _, r in rules(case) if "leases" in r["resources"] and "update" in r["verbs"]]
    check(leases == ([] if case == "bare" else [[name]]), case, f"the Leases are {leases}, the installation is {name}")

for case in ("namespaced", "all"):
    cluster = [d["metadata"]["name"] for d in of_kind(case, "ClusterRole")]
    check(all(n.endswith(("-view", "-edit")) for n in cluster), case, f"cluster-wide permissions: {cluster}")
    check(not of_kind(case, "ClusterRoleBinding"), case, "unexpected ClusterRoleBinding")
    check("team-a" in [d["metadata"]["namespace"] for d in of_kind(case, "Role")], case, "no Role in team-a")
    check(environment(case)["DATJOB_WATCH_NAMESPACE"] == "team-a", case, "DATJOB_WATCH_NAMESPACE is not team-a")
check(not [d for d in cases["bare"] if "Role" in d["kind"] or d["kind"] == "ServiceAccount"], "bare", "unexpected roles or service accounts")

check(environment("default")["DATJOB_NAME"] == "datjob-operator", "default", "the name of the Lease differs from that of 0.1.0")

# Alerts select this release's operator, use metrics that exist, and contain no remains of the template.
sources = "".join(pathlib.Path("operator/src", name).read_text() for name in ("metrics.rs", "metrics/jobs.rs"))
registered = set(re.findall(r'register\(\s*"([a-z_]+)"', sources))
for rule in (rule for group in of_kind("all", "PrometheusRule")[0]["spec"]["groups"] for rule in group["rules"]):
    alert, expression = rule["alert"], rule["expr"]
    selectors = re.findall(r"(datjob_operator_[a-z_]+)(\{[^}]*\})", expression)
    check(selectors and len(selectors) == expression.count("datjob_operator_"), "all", f"{alert} has a metric without a selector")
    for metric, selector in selectors:
        check(selector == '{namespace="datjob-system",service="robust-metrics"}', "all", f"{alert} selects {selector}")
        name = re.sub("_(total|bucket)$", "", metric.removeprefix("datjob_operator_"))
        check(name in registered, "all", f"{alert} uses {metric}, which the operator does not have")
    check(rule["labels"]["severity"] in ("warning", "critical") and "for" in rule, "all", f"{alert} has no severity or no duration")
    for text in rule["annotations"].values():
        check("%!" not in text and "<no value>" not in text, "all", f"{alert}: {text}")

pod = of_kind("all", "Deployment")[0]["spec"]["template"]
check(pod["spec"]["containers"][0]["image"] == "registry.example.com:5000/datjob/operator:v9.9.9-rc.1", "all", "image")
check(environment("all")["DATJOB_TRAINER_IMAGE"] == "registry.example.com/datjob/trainer:9", "all", "trainerImage")
check(environment("all")["DATJOB_TRAINER_CUDA_IMAGE"] == "registry.example.com/datjob/trainer-cuda:9", "all", "gpu.trainerImage")
check(not environment("default")["DATJOB_TRAINER_CUDA_IMAGE"], "default", "GPUs are on")
check(environment("all")["DATJOB_LOG"] == "info,datjob_operator=debug", "all", "logLevel")
check(environment("default")["DATJOB_TRAINER_IMAGE"] == "localhost/datjob/trainer:0.1.0", "default", "trainerImage")
for field in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName", "topologySpreadConstraints"):
    check(field in pod["spec"], "all", f"{field} does not reach the pod")
check(pod["metadata"]["labels"].get("example.com/b") == "2", "all", "podLabels do not reach the pod")
check(pod["metadata"]["annotations"] == {"example.com/a": "1"}, "all", "podAnnotations do not reach the pod")
check(pod["spec"]["serviceAccountName"] == "own-account", "all", "serviceAccount.name does not reach the pod")
check({d["metadata"]["name"].split("-")[0] for d in cases["all"]} <= {"robust", "own", "datjobs.datjob.io"}, "all", "fullnameOverride is not used")

for failure in sorted(failures):
    print(f"chart-test: {failure}", file=sys.stderr)
if failures:
    sys.exit(1)
print(f"chart-test: passed: {len(cases)} renderings; invalid values are rejected by name")
PYTHON
