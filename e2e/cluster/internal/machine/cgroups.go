// Package machine does what needs root: namespaces, links, mounts, cgroups and
// processes.
package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"datjob.io/e2e/cluster/internal/plan"
)

// Cgroups are the cgroup hierarchies of the machine: several with cgroup v1,
// the one with cgroup v2.
//
// Cgroup v2 was never tried: the machine that this was written on has v1.
type Cgroups struct {
	Version     int
	Hierarchies []Hierarchy
}

// Hierarchy is one mounted hierarchy.
type Hierarchy struct {
	MountPoint string
	// Controllers are those of the hierarchy; name=systemd counts as one.
	Controllers []string
}

const unifiedMountPoint = "/sys/fs/cgroup"

// FindCgroups looks at what is mounted. Version 2 counts where it alone is
// mounted, which is how the kubelet decides as well.
func FindCgroups() (Cgroups, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(unifiedMountPoint, &stat); err != nil {
		return Cgroups{}, fmt.Errorf("no cgroup file system at %s: %w; mount it first", unifiedMountPoint, err)
	}
	if stat.Type == unix.CGROUP2_SUPER_MAGIC {
		return findUnified()
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Cgroups{}, fmt.Errorf("cannot read the mounts: %w", err)
	}
	c := Cgroups{Version: 1, Hierarchies: hierarchiesIn(string(mounts))}
	return c, c.check()
}

func findUnified() (Cgroups, error) {
	controllers, err := os.ReadFile(filepath.Join(unifiedMountPoint, "cgroup.controllers"))
	if err != nil {
		return Cgroups{}, fmt.Errorf("cannot read the cgroup controllers: %w", err)
	}
	c := Cgroups{Version: 2, Hierarchies: []Hierarchy{{unifiedMountPoint, strings.Fields(string(controllers))}}}
	return c, c.check()
}

// check looks for the controllers that the kubelet does not start without.
func (c Cgroups) check() error {
	need := []string{"cpu", "cpuset", "memory"}
	if c.Version == 1 {
		need = append(need, "cpuacct")
	}
	for _, controller := range need {
		has := func(h Hierarchy) bool { return slices.Contains(h.Controllers, controller) }
		if !slices.ContainsFunc(c.Hierarchies, has) {
			return fmt.Errorf("the cgroup controller %s is not mounted below %s, but the kubelet needs it; enable it in the kernel or mount it", controller, unifiedMountPoint)
		}
	}
	return nil
}

// hierarchiesIn finds the cgroup v1 hierarchies in the text of
// /proc/self/mountinfo. One may be mounted twice; the first counts.
func hierarchiesIn(mountinfo string) []Hierarchy {
	var found []Hierarchy
	seen := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		fields, super, ok := splitMountinfo(line)
		if !ok || !strings.HasPrefix(super[0], "cgroup") || seen[super[0]+super[2]] {
			continue
		}
		seen[super[0]+super[2]] = true
		h := Hierarchy{MountPoint: fields[4]}
		if super[0] == "cgroup2" {
			// Beside the others it has no controllers, but runc and the
			// kubelet make their cgroups in it as well.
			found = append(found, h)
			continue
		}
		for option := range strings.SplitSeq(super[2], ",") {
			if option != "rw" && option != "ro" && option != "xattr" && !strings.HasPrefix(option, "release_agent=") {
				h.Controllers = append(h.Controllers, option)
			}
		}
		found = append(found, h)
	}
	return found
}

// Make makes the cgroups of a node.
func (c Cgroups) Make(node plan.Node) error {
	for _, h := range c.Hierarchies {
		for _, path := range []string{plan.CgroupRoot, node.Cgroup(), node.PartsCgroup()} {
			if err := c.makeOne(h, path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c Cgroups) makeOne(h Hierarchy, path string) error {
	dir := filepath.Join(h.MountPoint, path)
	if c.Version == 2 {
		// A controller is had below only where the parent hands it down.
		if err := handDown(filepath.Dir(dir), h.Controllers); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot create the cgroup %s: %w; check that %s is writable, which it is not in an unprivileged container", dir, err, h.MountPoint)
	}
	if c.Version == 1 && slices.Contains(h.Controllers, "cpuset") {
		return fillCpuset(dir)
	}
	return nil
}

// fillCpuset gives a cpuset what its parent has: it is empty at first, and no
// process can be in an empty one.
func fillCpuset(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), value, 0)
		}
		if err != nil {
			return fmt.Errorf("cannot initialize the cpuset %s: %w", dir, err)
		}
	}
	return nil
}

// handDown enables controllers for the children of a cgroup v2. It fails where
// processes are in the cgroup and it is not the root, which is so in a
// container with a cgroup namespace; that is for the caller to tidy up.
func handDown(dir string, controllers []string) error {
	for _, controller := range controllers {
		file := filepath.Join(dir, "cgroup.subtree_control")
		err := os.WriteFile(file, []byte("+"+controller), 0)
		if err != nil && slices.Contains([]string{"cpu", "cpuset", "memory", "pids"}, controller) {
			return fmt.Errorf("cannot enable the cgroup controller %s below %s: %w; move the processes in it to a child cgroup first", controller, dir, err)
		}
	}
	return nil
}

// Dirs are the directories of a cgroup, one in each hierarchy.
func (c Cgroups) Dirs(path string) []string {
	var dirs []string
	for _, h := range c.Hierarchies {
		dirs = append(dirs, filepath.Join(h.MountPoint, path))
	}
	return dirs
}

// Processes are the ids of the processes in a cgroup and below it, in any
// hierarchy.
func (c Cgroups) Processes(path string) []int {
	seen := map[int]bool{}
	for _, dir := range c.Dirs(path) {
		// A cgroup that goes away meanwhile has no processes.
		_ = filepath.WalkDir(dir, func(p string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil
			}
			data, _ := os.ReadFile(filepath.Join(p, "cgroup.procs"))
			for id := range strings.FieldsSeq(string(data)) {
				// 0 is a process of another process namespace.
				if pid, err := strconv.Atoi(id); err == nil && pid > 0 {
					seen[pid] = true
				}
			}
			return nil
		})
	}
	pids := make([]int, 0, len(seen))
	for pid := range seen {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids
}

// Exists says whether the cgroup is there in any hierarchy.
func (c Cgroups) Exists(path string) bool {
	return slices.ContainsFunc(c.Dirs(path), exists)
}

// Remove removes a cgroup and those below it. Their processes must have been
// killed; the kernel needs a moment to let them go.
func (c Cgroups) Remove(path string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := c.removeOnce(path)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cannot remove a cgroup of the cluster within 10 s (processes: %v): %w", c.Processes(path), err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (c Cgroups) removeOnce(path string) error {
	var failed error
	for _, dir := range c.Dirs(path) {
		var dirs []string
		_ = filepath.WalkDir(dir, func(p string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, p)
			}
			return nil
		})
		// Children come after their parents in a walk.
		for _, d := range slices.Backward(dirs) {
			if err := unix.Rmdir(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = fmt.Errorf("cannot remove %s: %w", d, err)
			}
		}
	}
	return failed
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
