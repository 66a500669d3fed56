package machine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const hybrid = `22 1 0:20 / /sys rw shared:7 - sysfs sysfs rw
30 22 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw shared:12 - cgroup cgroup rw,xattr,release_agent=/bin/agent,name=systemd
33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:29 / /mnt/again rw - cgroup cgroup rw,memory
35 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
broken line
`

func TestHierarchiesAreFoundOnceEach(t *testing.T) {
	got := hierarchiesIn(hybrid)
	want := []Hierarchy{
		{"/sys/fs/cgroup/cpu,cpuacct", []string{"cpu", "cpuacct"}},
		{"/sys/fs/cgroup/systemd", []string{"name=systemd"}},
		{"/sys/fs/cgroup/memory", []string{"memory"}},
		{"/sys/fs/cgroup/unified", nil},
	}
	if !slices.EqualFunc(got, want, func(a, b Hierarchy) bool {
		return a.MountPoint == b.MountPoint && slices.Equal(a.Controllers, b.Controllers)
	}) {
		t.Errorf("got %v", got)
	}
}

func TestMissingControllerIsNamed(t *testing.T) {
	c := Cgroups{Version: 1, Hierarchies: hierarchiesIn(hybrid)}
	if err := c.check(); err == nil {
		t.Error("a machine without cpuset is accepted")
	}
	c.Hierarchies = append(c.Hierarchies, Hierarchy{"/sys/fs/cgroup/cpuset", []string{"cpuset"}})
	if err := c.check(); err != nil {
		t.Error(err)
	}
}

func TestProcessesOfACgroupAndThoseBelow(t *testing.T) {
	dir := t.TempDir()
	for path, procs := range map[string]string{
		"a/datjob": "", "a/datjob/node1/parts": "12\n7\n", "a/datjob/node1/kubepods/pod": "30\n0\n",
		"b/datjob/node1/parts": "7\n8\n", "a/other": "99\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path, "cgroup.procs"), []byte(procs), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := Cgroups{Hierarchies: []Hierarchy{{MountPoint: dir + "/a"}, {MountPoint: dir + "/b"}, {MountPoint: dir + "/none"}}}
	if got := c.Processes("/datjob"); !slices.Equal(got, []int{7, 8, 12, 30}) {
		t.Errorf("got %v", got)
	}
	if got := c.Processes("/datjob/node1/kubepods"); !slices.Equal(got, []int{30}) {
		t.Errorf("got %v", got)
	}
	if !c.Exists("/datjob") || c.Exists("/nothing") {
		t.Error("Exists returns the wrong result")
	}
}
