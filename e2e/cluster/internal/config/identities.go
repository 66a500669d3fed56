// Package config renders the files and the arguments that the parts of the
// cluster are started with. Nothing in it touches the machine.
package config

import (
	"net/netip"

	"datjob.io/e2e/cluster/internal/pki"
	"datjob.io/e2e/cluster/internal/plan"
)

// Names of the certificates, which are their file names too.
const (
	Authority         = "ca"
	ServiceAccounts   = "service-accounts"
	APIServer         = "kube-apiserver"
	APIServerKubelet  = "kube-apiserver-kubelet-client"
	Admin             = "admin"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Proxy             = "kube-proxy"
	CoreDNS           = "coredns"
	Volumes           = "volumes"
	Kubelet           = "kubelet"
)

// Users in Kubernetes of the parts that are no standard part, so that no
// standard role binding names them.
const (
	CoreDNSUser = "datjob:coredns"
	VolumesUser = "datjob:volumes"
)

// Identities are the certificates of a cluster of one node, by name.
func Identities(node plan.Node) map[string]pki.Identity {
	return map[string]pki.Identity{
		APIServer: {
			Name: "kube-apiserver",
			DNSNames: []string{
				"kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc." + plan.ClusterDomain,
			},
			Addresses: []netip.Addr{
				node.Address(), plan.APIServiceAddress(), netip.MustParseAddr("127.0.0.1"),
			},
		},
		APIServerKubelet:  {Name: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		Admin:             {Name: "admin", Groups: []string{"system:masters"}},
		ControllerManager: {Name: "system:kube-controller-manager"},
		Scheduler:         {Name: "system:kube-scheduler"},
		Proxy:             {Name: "system:kube-proxy"},
		CoreDNS:           {Name: CoreDNSUser},
		Volumes:           {Name: VolumesUser},
		Kubelet: {
			Name:      "system:node:" + node.Name(),
			Groups:    []string{"system:nodes"},
			DNSNames:  []string{node.Name()},
			Addresses: []netip.Addr{node.Address()},
		},
	}
}

// Clients are the identities that talk to the API server by a kubeconfig.
func Clients() []string {
	return []string{ControllerManager, Scheduler, Proxy, CoreDNS, Volumes, Kubelet}
}
