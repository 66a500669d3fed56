package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"datjob.io/e2e/cluster/internal/plan"
)

// hiddenDirs are directories that the parts write to whatever their
// configuration says: containerd's shims and runc (/run), links to container
// logs (/var/log), device plugins, results of network plugins. In the node's
// mount namespace, directories of the cluster's own lie over them.
//
// The first two are on every machine. The others are made where they are
// missing, as something must be there to mount over, and removed by `down`.
var hiddenDirs = []string{"/run", "/var/log", "/var/lib/kubelet", "/var/lib/cni"}

// removableDirs are those of hiddenDirs that `down` removes if they are empty.
var removableDirs = hiddenDirs[2:]

// hiddenSysctls are those that the kubelet sets for the whole machine. Private
// files lie over them: what it writes is never seen by the kernel.
var hiddenSysctls = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// hideHost prepares the mount namespace that the calling thread is in.
func hideHost(stateDir string, l plan.NodeLayout) error {
	// Slave: what the host unmounts, goes here as well. Shared on top of
	// it: pods may ask for mounts that spread among containers.
	for _, flags := range []uintptr{unix.MS_SLAVE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", unix.MS_REC|flags, ""); err != nil {
			return fmt.Errorf("cannot isolate the mount namespace from the host: %w", err)
		}
	}
	for _, dir := range hiddenDirs {
		if err := hideDir(dir, filepath.Join(l.Private(), dir), stateDir); err != nil {
			return err
		}
	}
	for _, name := range hiddenSysctls {
		if err := hideSysctl(filepath.Join("/proc/sys", name), filepath.Join(l.Sysctls(), name)); err != nil {
			return err
		}
	}
	return nil
}

func hideDir(dir, private, stateDir string) error {
	for _, d := range []string{dir, private} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("cannot create a directory to hide %s: %w", dir, err)
		}
	}
	state, err := unix.Open(stateDir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the state directory %s: %w", stateDir, err)
	}
	defer unix.Close(state)
	if err := unix.Mount(private, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot hide %s: %w", dir, err)
	}
	if !strings.HasPrefix(stateDir, dir+"/") {
		return nil
	}
	// The state directory itself has just been hidden: show it again.
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return fmt.Errorf("cannot mount the state directory %s: %w", stateDir, err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/thread-self/fd/%d", state), stateDir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cannot mount the state directory %s: %w", stateDir, err)
	}
	return nil
}

func hideSysctl(sysctl, private string) error {
	value, err := os.ReadFile(sysctl)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // This kernel does not have it.
	}
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", sysctl, err)
	}
	if err := os.MkdirAll(filepath.Dir(private), 0o755); err != nil {
		return fmt.Errorf("cannot create a directory to hide %s: %w", sysctl, err)
	}
	if err := os.WriteFile(private, value, 0o644); err != nil {
		return fmt.Errorf("cannot create a file to hide %s: %w", sysctl, err)
	}
	if err := unix.Mount(private, sysctl, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot hide %s: %w", sysctl, err)
	}
	return nil
}

// RemoveMadeDirs removes directories that hideHost made on the host, unless
// something is in them now.
func RemoveMadeDirs(made []string) {
	for _, dir := range made {
		if slices.Contains(removableDirs, dir) {
			_ = os.Remove(dir)
		}
	}
}

// DirsToMake are the directories that hideHost is going to make on the host.
func DirsToMake() []string {
	var missing []string
	for _, dir := range removableDirs {
		if !exists(dir) {
			missing = append(missing, dir)
		}
	}
	return missing
}
