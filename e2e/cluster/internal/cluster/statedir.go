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
		return fmt.Errorf("the state directory %q must be an absolute path without detours", dir)
	case strings.Count(dir, "/") < 2:
		return fmt.Errorf("the state directory %q is too close to the root: it is deleted by `cluster down`", dir)
	case len(dir) > maxDirLength:
		return fmt.Errorf("the state directory %q is longer than %d characters, and the paths of sockets in it would be too long for the kernel", dir, maxDirLength)
	case strings.ContainsAny(dir, " \t\n\"'\\{}:,"):
		return fmt.Errorf("the state directory %q has characters that configuration files do not take", dir)
	}
	return nil
}

// makeStateDir refuses a directory with something of others in it: `down` is
// going to delete it.
func makeStateDir(l plan.Layout) error {
	entries, err := os.ReadDir(l.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the state directory cannot be read: %w", err)
	}
	if len(entries) > 0 && !marked(l) {
		return fmt.Errorf("the state directory %s is not empty and was not made by `cluster up`: choose another with --dir", l.Dir)
	}
	// Open to look into: pods of any user reach their volumes through it.
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return fmt.Errorf("the state directory cannot be made: %w", err)
	}
	return writeMarker(l)
}

// writeMarker notes in the marker the directories outside the state directory
// that are going to be made, to be mounted over.
func writeMarker(l plan.Layout) error {
	text := strings.Join(machine.DirsToMake(), "\n")
	if err := os.WriteFile(l.Marker(), []byte(text), 0o644); err != nil {
		return fmt.Errorf("the state directory %s cannot be written to: %w", l.Dir, err)
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
		return fmt.Errorf("the state directory cannot be read: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(l.Dir, entry.Name())
		if path == l.Marker() {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("the state directory cannot be deleted: %w", err)
		}
	}
	made, err := os.ReadFile(l.Marker())
	if err != nil {
		return fmt.Errorf("the state directory cannot be read: %w", err)
	}
	machine.RemoveMadeDirs(strings.Fields(string(made)))
	if err := os.Remove(l.Marker()); err != nil {
		return fmt.Errorf("the state directory cannot be deleted: %w", err)
	}
	// It stays, empty, where it is a mount point of the machine's owner.
	_ = os.Remove(l.Dir)
	return nil
}
