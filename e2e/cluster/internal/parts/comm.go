package parts

import (
	"fmt"
	"os"
)

// setComm names the process: the parts run as /proc/self/exe, so ps would call
// them all "exe". The name of a process is that of its main thread, which need
// not be the one that this runs on.
func setComm(name string) error {
	name = name[:min(len(name), 15)] // What the kernel keeps.
	file := fmt.Sprintf("/proc/self/task/%d/comm", os.Getpid())
	if err := os.WriteFile(file, []byte(name), 0); err != nil {
		return fmt.Errorf("cannot set the process name %s: %w", name, err)
	}
	return nil
}
