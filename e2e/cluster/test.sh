#!/bin/bash
# Tests the binary against the real thing: test.sh CLUSTER_BINARY
#
# Needs root and a machine without a cluster. Takes about a minute and leaves
# nothing behind, which is one of the things tested.
set -euo pipefail

if [ $# -ne 1 ]; then
	echo "usage: $0 CLUSTER_BINARY" >&2
	exit 2
fi
binary=$(realpath "$1")
dir=$(mktemp -d /var/tmp/datjob-test.XXXXXX)
work=$(mktemp -d)
export DATJOB_CLUSTER_DIR=$dir
unset KUBECONFIG
ln -s "$binary" "$work/kubectl"
kubectl() { "$work/kubectl" "$@"; }
cluster() { "$binary" "$@"; }

current="starting"
finish() {
	local code=$?
	if [ $code -ne 0 ]; then
		echo "not ok - $current"
		[ ! -f "$work/out" ] || sed 's/^/    /' "$work/out"
		cluster status | sed 's/^/    /' || true
		kubectl get pods,pvc,events -A 2>/dev/null | tail -n 40 | sed 's/^/    /' || true
	fi
	cluster down >/dev/null || true
	rm -rf "$work"
	[ ! -d "$dir" ] || rmdir "$dir"
	exit $code
}
trap finish EXIT

# check NAME COMMAND...: the command succeeds.
check() {
	current=$1
	shift
	"$@" >"$work/out" 2>&1 || return 1
	echo "ok - $current"
}
# says TEXT COMMAND...: the command succeeds and prints the text.
says() {
	local text=$1
	shift
	if ! "$@" >"$work/said" 2>&1 || ! grep -qF -- "$text" "$work/said"; then
		cat "$work/said"
		return 1
	fi
}
# refuses TEXT COMMAND...: the command fails with the text.
refuses() {
	local text=$1 out
	shift
	if out=$("$@" 2>&1); then
		echo "$out"
		return 1
	fi
	grep -qF -- "$text" <<<"$out" || { echo "$out"; return 1; }
}
# eventually COMMAND...: the command succeeds within half a minute.
eventually() {
	local end=$((SECONDS + 30))
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.2
	done
}

# Everything on the machine that a cluster could leave behind. (Of mounts, those
# in places that it uses: others may come and go meanwhile.)
machine() {
	echo "processes:"
	for cmdline in /proc/[0-9]*/cmdline; do
		{ tr '\0' ' ' <"$cmdline" | grep -E "(^cluster part|$dir|[c]ontainerd-shim)"; } 2>/dev/null || true
	done
	echo "mounts:"
	findmnt -rno TARGET,FSTYPE |
		grep -E "$dir|^/run|^/var/(lib|log)|^/proc|^/sys|netns|cni|kubelet|kubepods" | sort
	echo "links:"
	ip -o link | awk '{print $2}' | sort
	echo "routes:"
	ip route
	echo "network namespaces:"
	ls /run/netns /var/run/docker/netns 2>/dev/null || true
	lsns -t net -no NS | sort
	echo "cgroups:"
	find /sys/fs/cgroup -type d \( -name '*datjob*' -o -name '*kubepods*' \) | sort
	echo "sysctls:"
	sysctl vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops \
		kernel.keys.root_maxkeys kernel.keys.root_maxbytes
	echo "packet filters:"
	nft list ruleset
	echo "files:"
	ls -d /run/* /var/lib/* /opt/* /tmp/hostpath_pv /var/log/pods /var/log/containers /etc/cni 2>/dev/null || true
}
# Kills every process of the cluster, after making sure that it is this test's:
# all clusters use the same cgroups.
kill_all() {
	current="killing all processes"
	grep -qF "\"$dir\"" /run/datjob-cluster.json || { echo "the running cluster is not the cluster of this test"; exit 1; }
	find /sys/fs/cgroup -path '*/datjob/*' -name cgroup.procs -exec cat {} + | sort -un |
		xargs kill -9 2>/dev/null || true # Some end as others are killed.
}
fetch() { timeout 5 cat <"/dev/tcp/$1/$2"; }
restarts() { kubectl -n test get pod fails -o jsonpath='{.status.containerStatuses[0].restartCount}'; }

if [ -e /run/datjob-cluster.json ]; then
	current="a cluster is up already: $(cat /run/datjob-cluster.json)"
	exit 1
fi
machine >"$work/before"

check "down succeeds when no cluster is up" says "No cluster is up" cluster down
check "status reports that no cluster is up" refuses "No cluster is up" cluster status
check "kubeconfig without a cluster suggests cluster up" refuses "cluster up" cluster kubeconfig
check "a directory that is not empty is refused" refuses "is not empty" cluster --dir /var/lib/dpkg up
check "the refused cluster is not recorded" test ! -e /run/datjob-cluster.json
check "up starts" says "The cluster is up." cluster up
check "status reports a healthy cluster" says "The cluster is healthy." cluster status
pid=$(cat "$dir/pid/etcd")
check "up does nothing when the cluster is healthy" says "up and healthy" cluster up
check "etcd was not restarted" test "$pid" = "$(cat "$dir/pid/etcd")"
check "a second cluster is refused" refuses "cluster --dir $dir down" cluster --dir "$work/other" up
check "down refuses to stop another cluster" refuses "cluster --dir $dir down" cluster --dir "$work/other" down
mv /run/datjob-cluster.json "$work/note"
check "down refuses that without the record of the cluster too" refuses "cluster --dir $dir down" cluster --dir "$work/other" down
mv "$work/note" /run/datjob-cluster.json
check "the sysctls of the host are unchanged" diff <(sed -n '/^sysctls/,/^packet/p' "$work/before") <(machine | sed -n '/^sysctls/,/^packet/p')
check "the packet filters of the host are unchanged" diff <(sed -n '/^packet/,/^files/p' "$work/before") <(machine | sed -n '/^packet/,/^files/p')
check "kubectl is built in" says "Server Version: v1.35" cluster kubectl version
check "helm is built in" says 'Version:"v4.' cluster helm version
check "kubeconfig prints the file" says "current-context: datjob" cluster kubeconfig
check "logs prints the log of a part" says "containerd successfully booted" cluster logs containerd
check "images are loaded" says "localhost/datjob-pause:1" cluster load-image "$dir/pause.tar"
check "a file that is not an image archive is refused" refuses "not an image archive" cluster load-image "$0"

cat >"$work/objects.yaml" <<'YAML'
apiVersion: v1
kind: Namespace
metadata:
  name: test
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: test}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: first, namespace: test}
spec: {selector: {statefulset.kubernetes.io/pod-name: web-0}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: test}
spec:
  replicas: 2
  serviceName: web
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      initContainers:
      - name: write
        image: localhost/datjob-pause:1
        command: [/pause, write, /data/file, written by a pod]
        securityContext: &restricted
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
        volumeMounts: &mounts [{name: data, mountPath: /data}]
      containers:
      - name: serve
        image: localhost/datjob-pause:1
        command: [/pause, serve, ":8080", hello from a pod]
        securityContext: *restricted
        volumeMounts: *mounts
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteMany]
      resources: {requests: {storage: 10Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: fails, namespace: test}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: fails
    image: localhost/datjob-pause:1
    command: [/pause, no-such-tool]
    securityContext: *restricted
YAML
# An anchor is good for one document only.
sed -i '$!b; s/\*restricted/{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}/' "$work/objects.yaml"

check "objects are applied" kubectl apply -f "$work/objects.yaml"
check "a StatefulSet of two becomes ready" kubectl -n test rollout status statefulset/web --timeout=60s
check "claims are bound" says "Bound Bound" kubectl -n test get pvc -o 'jsonpath={.items[*].status.phase}'
check "user 65532 has written to both volumes" test "$(find "$dir/volumes" -name file -user 65532 | wc -l)" = 2
check "kubectl logs" says "Serving on" kubectl -n test logs web-0
# Ready pods are known to DNS and to kube-proxy a moment later.
check "kubectl exec, and DNS of a peer" eventually says "10.214." kubectl -n test exec web-0 -- /pause lookup web-1.web
check "DNS of a service by its full name" says "10.213.128.1" kubectl -n test exec web-0 -- /pause lookup kubernetes.default.svc.cluster.local
check "DNS of an unknown name fails" refuses "no such host" kubectl -n test exec web-0 -- /pause lookup web-7.web
check "a pod reaches a service" eventually says "hello" kubectl -n test exec web-1 -- /pause fetch first:80
check "a pod reaches itself by its service" eventually says "hello" kubectl -n test exec web-0 -- /pause fetch first:80
check "a pod reaches the API server" kubectl -n test exec web-0 -- /pause fetch kubernetes.default:443
service=$(kubectl -n test get service first -o 'jsonpath={.spec.clusterIP}')
check "the host reaches a service" eventually says "hello" fetch "$service" 80
check "the node reaches a service, as for webhooks" says "hello" nsenter --net=/run/netns/datjob timeout 5 bash -c "cat </dev/tcp/$service/80"
check "the host reaches a pod" says "hello" fetch "$(kubectl -n test get pod web-1 -o 'jsonpath={.status.podIP}')" 8080

kubectl -n test port-forward pod/web-0 28080:8080 >"$work/forward" 2>&1 &
forward=$!
check "kubectl port-forward" eventually says "hello" fetch 127.0.0.1 28080
kill $forward
wait $forward 2>/dev/null || true

crashed() { [ "$(restarts)" -ge 1 ]; }
check "a failing pod is restarted" eventually crashed
check "events state the reason" eventually says "BackOff" kubectl -n test get events

mkdir -p "$work/chart/templates"
printf 'apiVersion: v2\nname: chart\nversion: 0.1.0\nkubeVersion: ">=1.35.0"\n' >"$work/chart/Chart.yaml"
printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "{{ .Release.Name }}"}\n' >"$work/chart/templates/map.yaml"
check "helm installs a chart with a kubeVersion" says "STATUS: deployed" cluster helm install release "$work/chart"
check "helm uninstalls it" cluster helm uninstall release

check "a namespace is deleted" kubectl delete namespace test --timeout=60s
gone() { [ -z "$(ls "$dir/volumes")" ] && [ -z "$(kubectl get pv -o name)" ]; }
check "its volumes are deleted" eventually gone

kill -9 "$(cat "$dir/pid/kube-scheduler")"
check "status names the missing part" refuses "missing: kube-scheduler." cluster status
check "up starts a new cluster when a part is missing" says "Removing the remains" cluster up

kubectl run left-over --image=localhost/datjob-pause:1 >/dev/null
check "a pod runs" kubectl wait --for=condition=Ready pod/left-over --timeout=60s
kill_all
check "up works after everything was killed" says "The cluster is up." cluster up
check "status reports a healthy cluster again" says "The cluster is healthy." cluster status

kubectl run left-over --image=localhost/datjob-pause:1 >/dev/null
check "a pod runs again" kubectl wait --for=condition=Ready pod/left-over --timeout=60s
for part in containerd kubelet kube-apiserver; do kill -9 "$(cat "$dir/pid/$part")"; done
check "down works after a part was killed" says "everything that it created is removed" cluster down
check "a second down succeeds" says "No cluster is up" cluster down

check "up once more" says "The cluster is up." cluster up
kill_all
check "down works after everything was killed" says "everything that it created is removed" cluster down
settled() {
	machine >"$work/after"
	# What has gone since the beginning was not the cluster's.
	! grep -vxFf "$work/before" "$work/after"
}
check "nothing remains on the machine" eventually settled
check "the state directory is removed" test ! -e "$dir"
echo "All tests passed."
