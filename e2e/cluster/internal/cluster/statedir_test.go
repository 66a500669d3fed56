package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datjob.io/e2e/cluster/internal/plan"
)

func TestCheckDir(t *testing.T) {
	for dir, fine := range map[string]bool{
		plan.DefaultDir: true, "/tmp/x": true,
		"/": false, "/var": false, "relative/dir": false, "/var/../etc/x": false, "/var/lib/x/": false,
		"/var/lib/with space": false, "/var/" + strings.Repeat("x", 60): false,
	} {
		if err := CheckDir(dir); (err == nil) != fine {
			t.Errorf("%q: got %v", dir, err)
		}
	}
}

func TestADirectoryOfOthersIsNeitherUsedNorDeleted(t *testing.T) {
	l := plan.Layout{Dir: t.TempDir()}
	file := filepath.Join(l.Dir, "precious")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := makeStateDir(l); err == nil {
		t.Error("a foreign directory is accepted")
	}
	if err := removeStateDir(l); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("a foreign file was deleted")
	}
}

func TestAStateDirectoryIsDeletedWhole(t *testing.T) {
	l := plan.Layout{Dir: filepath.Join(t.TempDir(), "state")}
	if err := makeStateDir(l); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(l.Log("etcd"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := makeStateDir(l); err != nil {
		t.Errorf("an existing state directory is refused: %v", err)
	}
	if err := removeStateDir(l); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.Dir); !os.IsNotExist(err) {
		t.Errorf("the state directory still exists: %v", err)
	}
	if err := removeStateDir(l); err != nil {
		t.Errorf("deleting a missing directory fails: %v", err)
	}
}
