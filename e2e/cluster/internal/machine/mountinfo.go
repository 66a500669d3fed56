package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// splitMountinfo splits a line of /proc/self/mountinfo into the fields before
// the dash (mount point fifth) and those behind it: type, source, options.
func splitMountinfo(line string) (fields, super []string, ok bool) {
	before, after, found := strings.Cut(line, " - ")
	fields, super = strings.Fields(before), strings.Fields(after)
	if !found || len(fields) < 6 || len(super) < 3 {
		return nil, nil, false
	}
	fields[4] = unescape(fields[4])
	return fields, super, true
}

// unescape undoes the octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// mountsBelow are the mount points below a directory (not the directory
// itself), the last mounted first: in the order to unmount them.
func mountsBelow(dir, mountinfo string) []string {
	var points []string
	for line := range strings.Lines(mountinfo) {
		fields, _, ok := splitMountinfo(line)
		if ok && strings.HasPrefix(fields[4], filepath.Clean(dir)+"/") {
			points = append([]string{fields[4]}, points...)
		}
	}
	return points
}

func readMountinfo() (string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("cannot read the mounts: %w", err)
	}
	return string(data), nil
}

// UnmountBelow unmounts whatever is mounted below a directory in this mount
// namespace. The cluster mounts nothing there (it has a mount namespace of its
// own), but a deletion must never run through a mount into something else.
func UnmountBelow(dir string) error {
	mountinfo, err := readMountinfo()
	if err != nil {
		return err
	}
	for _, point := range mountsBelow(dir, mountinfo) {
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("cannot unmount %s: %w", point, err)
		}
	}
	return nil
}
