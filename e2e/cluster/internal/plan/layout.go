package plan

import "path/filepath"

// DefaultDir is the state directory where none is given.
const DefaultDir = "/var/lib/datjob-cluster"

// OwnerFile says, for the whole machine, which state directory the cluster
// that is up belongs to: one cluster at a time.
const OwnerFile = "/run/datjob-cluster.json"

// Layout is the state directory: every file that a cluster makes lies below.
type Layout struct{ Dir string }

// Marker is in every directory made by `cluster up`; no other directory is
// ever deleted.
func (l Layout) Marker() string { return filepath.Join(l.Dir, ".datjob-cluster") }

// AdminKubeconfig is the kubeconfig for people.
func (l Layout) AdminKubeconfig() string { return filepath.Join(l.Dir, "kubeconfig") }

// Kubeconfig is the kubeconfig of a part.
func (l Layout) Kubeconfig(part string) string {
	return filepath.Join(l.Dir, "kubeconfigs", part)
}

// Certificate is the file of a certificate.
func (l Layout) Certificate(name string) string { return filepath.Join(l.Dir, "pki", name+".crt") }

// Key is the file of a private key.
func (l Layout) Key(name string) string { return filepath.Join(l.Dir, "pki", name+".key") }

// PublicKey is the file of a public key.
func (l Layout) PublicKey(name string) string { return filepath.Join(l.Dir, "pki", name+".pub") }

// Log is the log of a part.
func (l Layout) Log(part string) string { return filepath.Join(l.Dir, "log", part+".log") }

// AuditPolicy says which requests the API server logs.
func (l Layout) AuditPolicy() string { return filepath.Join(l.Dir, "audit-policy.yaml") }

// AuditLog has a line for each logged request.
func (l Layout) AuditLog() string { return filepath.Join(l.LogDir(), "audit.log") }

// LogDir holds the logs of the parts.
func (l Layout) LogDir() string { return filepath.Join(l.Dir, "log") }

// Pid is the file with the process id of a part.
func (l Layout) Pid(part string) string { return filepath.Join(l.Dir, "pid", part) }

// EtcdData is etcd's data directory.
func (l Layout) EtcdData() string { return filepath.Join(l.Dir, "etcd") }

// Corefile is the configuration of CoreDNS.
func (l Layout) Corefile() string { return filepath.Join(l.Dir, "Corefile") }

// Volumes holds the directories of the claims' volumes.
func (l Layout) Volumes() string { return filepath.Join(l.Dir, "volumes") }

// PauseImage is the archive of the pause image.
func (l Layout) PauseImage() string { return filepath.Join(l.Dir, "pause.tar") }

// NodeLayout is the part of the state directory that belongs to one node.
type NodeLayout struct{ Dir string }

// Node is the node's part of the state directory.
func (l Layout) Node(n Node) NodeLayout { return NodeLayout{filepath.Join(l.Dir, n.Name())} }

func (l NodeLayout) in(name string) string { return filepath.Join(l.Dir, name) }

// ContainerdConfig is containerd's configuration.
func (l NodeLayout) ContainerdConfig() string { return l.in("containerd.toml") }

// ContainerdSocket is where containerd listens.
func (l NodeLayout) ContainerdSocket() string { return l.in("containerd.sock") }

// ContainerdRoot holds images and snapshots.
func (l NodeLayout) ContainerdRoot() string { return l.in("containerd") }

// ContainerdState holds what containerd needs only while it runs.
func (l NodeLayout) ContainerdState() string { return l.in("containerd-state") }

// CNIConfig is the directory of the network configuration.
func (l NodeLayout) CNIConfig() string { return l.in("cni") }

// CNIAddresses is where the addresses given to pods are noted.
func (l NodeLayout) CNIAddresses() string { return l.in("cni-addresses") }

// KubeletConfig is the kubelet's configuration.
func (l NodeLayout) KubeletConfig() string { return l.in("kubelet.yaml") }

// KubeletRoot is the kubelet's root directory.
func (l NodeLayout) KubeletRoot() string { return l.in("kubelet") }

// PodLogs is where the logs of containers lie.
func (l NodeLayout) PodLogs() string { return l.in("pod-logs") }

// VolumePlugins is an empty directory: no FlexVolume plugins.
func (l NodeLayout) VolumePlugins() string { return l.in("volume-plugins") }

// ResolvConf is the resolv.conf of pods with dnsPolicy Default.
func (l NodeLayout) ResolvConf() string { return l.in("resolv.conf") }

// Sysctls holds the private files over the host's sysctls.
func (l NodeLayout) Sysctls() string { return l.in("sysctls") }

// Private holds what is mounted over the host's directories in the node's
// mount namespace.
func (l NodeLayout) Private() string { return l.in("private") }
