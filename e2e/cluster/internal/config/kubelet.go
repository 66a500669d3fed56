package config

import (
	"fmt"

	"datjob.io/e2e/cluster/internal/plan"
)

// maxPods is above the 110 of the default: scale tests put hundreds of pods
// on the one node.
const maxPods = 500

// KubeletConfig is the kubelet's configuration.
//
// oomScoreAdj and maxOpenFiles: the defaults need rights that a container or a
// small machine may not give. localStorageCapacityIsolation, evictionHard and
// the threshold of 100 %: what the disk holds is the host's affair, no pod is
// evicted and no image deleted for it. failCgroupV1: 1.35 warns of cgroup v1
// and goes on.
func KubeletConfig(node plan.Node, all plan.Layout) []byte {
	l := all.Node(node)
	return fmt.Appendf(nil, `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://%s
cgroupDriver: cgroupfs
cgroupRoot: %s
cgroupsPerQOS: true
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: 20000
maxPods: %d
serializeImagePulls: false
localStorageCapacityIsolation: false
evictionHard: {}
imageGCHighThresholdPercent: 100
clusterDNS: [%s]
clusterDomain: %s
resolvConf: %s
podLogsDir: %s
volumePluginDir: %s
tlsCertFile: %s
tlsPrivateKeyFile: %s
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %s}
authorization: {mode: Webhook}
`, l.ContainerdSocket(), node.Cgroup(), maxPods, plan.First.Address(), plan.ClusterDomain,
		l.ResolvConf(), l.PodLogs(), l.VolumePlugins(),
		all.Certificate(Kubelet), all.Key(Kubelet), all.Certificate(Authority))
}

// ResolvConf is what pods with dnsPolicy Default get: the cluster has no way
// out, so there is no other name server to name.
func ResolvConf() []byte {
	return fmt.Appendf(nil, "nameserver %s\n", plan.First.Address())
}
