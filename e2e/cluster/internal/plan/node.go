package plan

import "fmt"

// Node is the number of a node, from 1. Everything that belongs to one node
// takes its name and address from the number, so that a second node needs no
// new naming.
type Node int

// First is the node that the control plane runs on.
const First Node = 1

// Bridge is the host's end of the nodes' network: it carries the host's
// address, and each node has a port on it.
const Bridge = "datjob"

// Name is the name of the node in Kubernetes.
func (n Node) Name() string { return fmt.Sprintf("node%d", n) }

// NetworkNamespace is the name under /run/netns.
func (n Node) NetworkNamespace() string {
	if n == First {
		return "datjob"
	}
	return fmt.Sprintf("datjob-node%d", n)
}

// HostLink is the end of the node's veth pair that is a port of the bridge.
// The kernel allows 15 characters.
func (n Node) HostLink() string { return fmt.Sprintf("datjob-port%d", n) }

// NodeLink is the end inside the node's network namespace.
func (n Node) NodeLink() string { return fmt.Sprintf("datjob-node%d", n) }

// Cgroup is the cgroup of the node, in each hierarchy. Its parts run in
// Cgroup/parts, its pods below Cgroup/kubepods.
func (n Node) Cgroup() string { return CgroupRoot + "/" + n.Name() }

// PartsCgroup is where the parts of the node and containerd's shims run.
func (n Node) PartsCgroup() string { return n.Cgroup() + "/parts" }

// PodsCgroup is where the kubelet puts the pods of the node.
func (n Node) PodsCgroup() string { return n.Cgroup() + "/kubepods" }

// CgroupRoot holds every process of the cluster and no other process. That is
// how `down` knows what to end, without a list that a crash could lose.
const CgroupRoot = "/datjob"

// CgroupsVariable is the environment variable with the cgroups, separated by
// colons, that a part moves itself into before it does anything else: before
// it could start a process that `down` would not find.
const CgroupsVariable = "DATJOB_CLUSTER_CGROUPS"
