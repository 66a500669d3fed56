package config

import (
	"fmt"

	"datjob.io/e2e/cluster/internal/plan"
)

// Names of the parts that have no certificate of their own.
const (
	Etcd       = "etcd"
	Containerd = "containerd"
)

// Part is a process of the cluster: `cluster part NAME ARGS...`.
type Part struct {
	Name string
	Args []string
}

// Base are the parts that everything else waits for; they need none of the
// others to start.
func Base(l plan.Layout, audit Audit) []Part {
	return []Part{etcd(l), apiServer(l, audit), containerd(l)}
}

// Rest are the parts that want a ready API server (they would try again and
// again, ever more slowly) and, the kubelet, a containerd that answers.
func Rest(l plan.Layout) []Part {
	return []Part{controllerManager(l), scheduler(l), proxy(l), coreDNS(l), volumes(l), kubelet(l)}
}

// StopOrder lists the parts in the groups that they are ended in. Pods are
// ended after the first group: a kubelet that lives would start them again. The
// API server goes before etcd, without which it hangs on its way out.
func StopOrder() [][]string {
	return [][]string{
		{Kubelet},
		{ControllerManager, Scheduler, Proxy, CoreDNS, Volumes},
		{APIServer},
		{Etcd, Containerd},
	}
}

// PartNames are the names of all parts.
func PartNames() []string {
	var names []string
	for _, p := range append(Base(plan.Layout{}, nil), Rest(plan.Layout{})...) {
		names = append(names, p.Name)
	}
	return names
}

func etcd(l plan.Layout) Part {
	return Part{Etcd, []string{
		"--data-dir=" + l.EtcdData(),
		fmt.Sprintf("--client-url=http://127.0.0.1:%d", plan.EtcdClientPort),
		fmt.Sprintf("--peer-url=http://127.0.0.1:%d", plan.EtcdPeerPort),
	}}
}

func apiServer(l plan.Layout, audit Audit) Part {
	return Part{APIServer, append([]string{
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", plan.EtcdClientPort),
		"--advertise-address=" + plan.First.Address().String(),
		fmt.Sprintf("--secure-port=%d", plan.APIServerPort),
		"--cert-dir=" + l.LogDir(), // Not used: the certificate is given.
		"--tls-cert-file=" + l.Certificate(APIServer),
		"--tls-private-key-file=" + l.Key(APIServer),
		"--client-ca-file=" + l.Certificate(Authority),
		"--service-account-issuer=https://kubernetes.default.svc." + plan.ClusterDomain,
		"--service-account-signing-key-file=" + l.Key(ServiceAccounts),
		"--service-account-key-file=" + l.PublicKey(ServiceAccounts),
		"--service-cluster-ip-range=" + plan.ServiceRange.String(),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		// It would dial the node's name otherwise, which no DNS knows, and
		// `kubectl logs` and `exec` would time out.
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority=" + l.Certificate(Authority),
		"--kubelet-client-certificate=" + l.Certificate(APIServerKubelet),
		"--kubelet-client-key=" + l.Key(APIServerKubelet),
	}, audit.arguments(l)...)}
}

func containerd(l plan.Layout) Part {
	return Part{Containerd, []string{"--config", l.Node(plan.First).ContainerdConfig(), "--log-level", "info"}}
}

func controllerManager(l plan.Layout) Part {
	return Part{ControllerManager, []string{
		"--kubeconfig=" + l.Kubeconfig(ControllerManager),
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		// Each controller makes its service account first; at the default
		// of 20 requests a second that takes longer than all the rest.
		// With thousands of StatefulSets, 200 would limit how fast pods
		// appear.
		"--kube-api-qps=2000", "--kube-api-burst=4000",
		"--root-ca-file=" + l.Certificate(Authority),
		"--service-account-private-key-file=" + l.Key(ServiceAccounts),
		"--cluster-signing-cert-file=" + l.Certificate(Authority),
		"--cluster-signing-key-file=" + l.Key(Authority),
		"--flex-volume-plugin-dir=" + l.Node(plan.First).VolumePlugins(),
	}}
}

func scheduler(l plan.Layout) Part {
	return Part{Scheduler, []string{
		"--kubeconfig=" + l.Kubeconfig(Scheduler),
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		// The default of 50 would limit how fast thousands of pods are
		// bound, or marked as unschedulable.
		"--kube-api-qps=2000", "--kube-api-burst=4000",
	}}
}

func proxy(l plan.Layout) Part {
	return Part{Proxy, []string{
		"--kubeconfig=" + l.Kubeconfig(Proxy),
		"--hostname-override=" + plan.First.Name(),
		"--proxy-mode=nftables",
		"--cluster-cidr=" + plan.PodRange.String(),
		// The limit is the whole machine's: leave it as it is.
		"--conntrack-max-per-core=0",
	}}
}

func coreDNS(l plan.Layout) Part {
	return Part{CoreDNS, []string{"-conf", l.Corefile()}}
}

func volumes(l plan.Layout) Part {
	return Part{Volumes, []string{"--kubeconfig=" + l.Kubeconfig(Volumes), "--volume-dir=" + l.Volumes()}}
}

func kubelet(l plan.Layout) Part {
	node := l.Node(plan.First)
	return Part{Kubelet, []string{
		"--kubeconfig=" + l.Kubeconfig(Kubelet),
		"--config=" + node.KubeletConfig(),
		"--root-dir=" + node.KubeletRoot(),
		"--cert-dir=" + node.KubeletRoot() + "/pki",
		"--hostname-override=" + plan.First.Name(),
		"--node-ip=" + plan.First.Address().String(),
	}}
}
