package cluster

import (
	"os"
	"testing"

	"datjob.io/e2e/cluster/internal/plan"
)

func TestTheOwnerIsFoundByARunningPart(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	self := []int{os.Getpid()}
	if owner := ownerOfParts(self); owner != nil {
		t.Errorf("a directory without a marker is taken for a state directory: %v", owner)
	}
	if err := makeStateDir(plan.Layout{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if owner := ownerOfParts(self); owner == nil || owner.Dir != dir {
		t.Errorf("got %v", owner)
	}
}
