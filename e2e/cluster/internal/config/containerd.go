package config

import (
	"fmt"

	"datjob.io/e2e/cluster/internal/image"
	"datjob.io/e2e/cluster/internal/plan"
)

// cniPlugins is where Debian's containernetworking-plugins puts them.
const cniPlugins = "/usr/lib/cni"

// ContainerdConfig is the configuration of a containerd that shares no file with
// another on the machine.
//
// restrict_oom_score_adj: where the cluster may not lower an OOM score (in a
// container, say), pods must start all the same. disable_apparmor: containerd
// would load its profile into the kernel and leave it there.
// netns_mounts_under_state_dir keeps the pods' network namespaces out of
// /run/netns.
func ContainerdConfig(l plan.NodeLayout) []byte {
	return fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = %q

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %q
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = %q
conf_dir = %q

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
`, l.ContainerdRoot(), l.ContainerdState(), l.ContainerdSocket(), image.PauseName, cniPlugins, l.CNIConfig())
}

// CNI is the pods' network: each pod is routed to by its own veth pair (ptp).
// Between pods on a bridge, the answer of a service would take the short way
// over the bridge, past the address translation, unless the kernel has bridge
// netfilter; here every packet passes the node's stack. No masquerading: pods
// are seen with their own addresses, by other nodes and by the host too.
func CNI(node plan.Node, l plan.NodeLayout) []byte {
	return fmt.Appendf(nil, `{
  "cniVersion": "1.0.0",
  "name": "datjob",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": false,
      "ipam": {
        "type": "host-local",
        "dataDir": %q,
        "ranges": [[{"subnet": %q}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}}
  ]
}
`, l.CNIAddresses(), node.PodRange())
}
