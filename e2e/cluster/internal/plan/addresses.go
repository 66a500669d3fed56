// Package plan says who is called what, who has which address and which file
// lies where. Nothing in it touches the machine.
package plan

import (
	"fmt"
	"net/netip"
)

// The three ranges that a cluster takes. They lie in a corner of 10.0.0.0/8
// that Docker, libvirt, kind, minikube, flannel and the usual cloud networks
// leave alone; `cluster up` refuses to start where one is taken all the same.
// To move the cluster, change them here and build again.
var (
	NodeRange    = netip.MustParsePrefix("10.213.0.0/24")
	ServiceRange = netip.MustParsePrefix("10.213.128.0/17")
	PodRange     = netip.MustParsePrefix("10.214.0.0/16")
)

const (
	// Every node has room for a thousand pods: IP addresses of pods that
	// have just ended are not free at once.
	podBitsPerNode = 22
	// MaxNodes is how many nodes the pod range has room for.
	MaxNodes = 1 << (podBitsPerNode - 16)

	// APIServerPort and the ports below are in the network namespace of
	// the node, so none is taken on the host.
	APIServerPort     = 6443
	EtcdClientPort    = 2379
	EtcdPeerPort      = 2380
	CoreDNSHealthPort = 10353
	CoreDNSReadyPort  = 10354

	// ClusterDomain is the DNS zone of the cluster.
	ClusterDomain = "cluster.local"
)

// HostAddress is the host's address in the node range: what a pod dials to
// reach a process on the host.
func HostAddress() netip.Addr { return fromEnd(NodeRange, 1) }

// APIServiceAddress is the address of the service `kubernetes`.
func APIServiceAddress() netip.Addr { return ServiceRange.Addr().Next() }

// Address is the address of the node.
func (n Node) Address() netip.Addr {
	octets := NodeRange.Addr().As4()
	octets[3] += byte(n)
	return netip.AddrFrom4(octets)
}

// PodRange is the range that the pods of the node get addresses from.
func (n Node) PodRange() netip.Prefix {
	octets := PodRange.Addr().As4()
	octets[2] += byte((int(n) - 1) << (24 - podBitsPerNode))
	return netip.PrefixFrom(netip.AddrFrom4(octets), podBitsPerNode)
}

// APIServerURL is where the API server is reached, from the host, from the
// nodes and from pods.
func APIServerURL() string {
	return fmt.Sprintf("https://%s:%d", First.Address(), APIServerPort)
}

// fromEnd is the address that lies back addresses before the broadcast
// address of a range of at most 256 addresses.
func fromEnd(p netip.Prefix, back byte) netip.Addr {
	octets := p.Addr().As4()
	octets[3] |= byte(0xff >> (p.Bits() - 24))
	octets[3] -= back
	return netip.AddrFrom4(octets)
}
