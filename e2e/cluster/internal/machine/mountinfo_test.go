package machine

import (
	"slices"
	"testing"
)

func TestMountsBelowComeInTheOrderToUnmount(t *testing.T) {
	mountinfo := `1 0 8:1 / / rw - ext4 /dev/vda rw
2 1 0:5 / /state rw - tmpfs tmpfs rw
3 2 0:6 / /state/a rw - tmpfs tmpfs rw
4 3 0:7 / /state/a/with\040space rw - tmpfs tmpfs rw
5 1 0:8 / /statement rw - tmpfs tmpfs rw
`
	got := mountsBelow("/state", mountinfo)
	if want := []string{"/state/a/with space", "/state/a"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
