package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// partsPath is the PATH of the parts, whatever that of the caller is.
const partsPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// requirement is a program that the parts run, and the Debian package it is in.
type requirement struct{ path, pkg string }

var requirements = []requirement{
	{"/usr/bin/containerd", "containerd"},
	{"/usr/bin/containerd-shim-runc-v2", "containerd"},
	{"/usr/bin/ctr", "containerd"},
	{"/usr/sbin/runc", "runc"},
	{"/usr/lib/cni/ptp", "containernetworking-plugins"},
	{"/usr/lib/cni/portmap", "containernetworking-plugins"},
	{"/usr/lib/cni/bandwidth", "containernetworking-plugins"},
	{"/usr/lib/cni/host-local", "containernetworking-plugins"},
	{"/usr/lib/cni/loopback", "containernetworking-plugins"},
	{"/usr/sbin/nft", "nftables"},
	{"/usr/sbin/iptables", "iptables"},
	{"/usr/bin/mount", "mount"},
}

// NeedRoot says so in a sentence.
func NeedRoot(command string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("`cluster %s` creates or removes namespaces, mounts and cgroups; run it as root", command)
	}
	return nil
}

func checkRequirements() error {
	var missing, packages []string
	for _, r := range requirements {
		if _, err := os.Stat(r.path); err == nil {
			continue
		}
		missing = append(missing, r.path)
		if !strings.Contains(strings.Join(packages, " "), r.pkg) {
			packages = append(packages, r.pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing %s; run e2e/cluster/prerequisites.sh or `apt-get install %s`",
			strings.Join(missing, ", "), strings.Join(packages, " "))
	}
	return checkOverlay()
}

func checkOverlay() error {
	has := func() bool {
		data, _ := os.ReadFile("/proc/filesystems")
		return strings.Contains(string(data), "\toverlay\n")
	}
	if has() {
		return nil
	}
	_ = exec.Command("/sbin/modprobe", "overlay").Run() // What counts is what it did.
	if !has() {
		return errors.New("the kernel does not support overlayfs, which containers need; load the module overlay (CONFIG_OVERLAY_FS)")
	}
	return nil
}

// checkNftables is run in the node's network namespace.
func checkNftables() error {
	if out, err := exec.Command("/usr/sbin/nft", "list", "tables").CombinedOutput(); err != nil {
		return fmt.Errorf("`nft list tables` failed: %s; kube-proxy needs nftables: check that the kernel has nf_tables", strings.TrimSpace(string(out)))
	}
	return nil
}
