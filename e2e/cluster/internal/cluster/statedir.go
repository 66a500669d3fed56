package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"datjob.io/e2e/cluster/internal/machine"
	"datjob.io/e2e/cluster/internal/plan"
)

// maxDirLength leaves room for the longest socket name below the directory:
// the kernel takes 107 characters for the path of a socket.
const maxDirLength = 50

// CheckDir says what is wrong with a state directory's path.
func CheckDir(dir string) error {
	switch {
	case !filepath.IsAbs(dir) || filepath.Clean(dir) != dir:
		return fmt.Errorf("invalid state directory %q: must be an absolute path without \".\", \"..\" or extra slashes", dir)
	case strings.Count(dir, "/") < 2:
		return fmt.Errorf("invalid state directory %q: `cluster down` deletes it, so it must not be directly below the root", dir)
	case len(dir) > maxDirLength:
		return fmt.Errorf("invalid state directory %q: must have at most %d characters, because the kernel limits the paths of sockets in it", dir, maxDirLength)
	case strings.ContainsAny(dir, " \t\n\"'\\{}:,"):
		return fmt.Errorf("invalid state directory %q: must not contain white space or any of \"'\\{}:,", dir)
	}
	return nil
}

// makeStateDir refuses a directory with something of others in it: `down` is
// going to delete it.
func makeStateDir(l plan.Layout) error {
	entries, err := os.ReadDir(l.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read the state directory: %w", err)
	}
	if len(entries) > 0 && !marked(l) {
		return fmt.Errorf("the state directory %s is not empty, and `cluster up` did not create it; choose another one with --dir", l.Dir)
	}
	// Open to look into: pods of any user reach their volumes through it.
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return fmt.Errorf("cannot create the state directory: %w", err)
	}
	return writeMarker(l)
}

// writeMarker notes in the marker the directories outside the state directory
// that are going to be made, to be mounted over.
func writeMarker(l plan.Layout) error {
	text := strings.Join(machine.DirsToMake(), "\n")
	if err := os.WriteFile(l.Marker(), []byte(text), 0o644); err != nil {
		return fmt.Errorf("cannot write to the state directory %s: %w", l.Dir, err)
	}
	return nil
}

func marked(l plan.Layout) bool {
	_, err := os.Stat(l.Marker())
	return err == nil
}

// removeStateDir deletes only what `up` has made. The marker goes last, so that
// a second try finds it.
func removeStateDir(l plan.Layout) error {
	if !marked(l) {
		return nil
	}
	if err := machine.UnmountBelow(l.Dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(l.Dir)
	if err != nil {
		return fmt.Errorf("cannot read the state directory: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(l.Dir, entry.Name())
		if path == l.Marker() {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("cannot delete the state directory: %w", err)
		}
	}
	made, err := os.ReadFile(l.Marker())
	if err != nil {
		return fmt.Errorf("cannot read the state directory: %w", err)
	}
	machine.RemoveMadeDirs(strings.Fields(string(made)))
	if err := os.Remove(l.Marker()); err != nil {
		return fmt.Errorf("cannot delete the state directory: %w", err)
	}
	// It stays, empty, where it is a mount point of the machine's owner.
	_ = os.Remove(l.Dir)
	return nil
}
