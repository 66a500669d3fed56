package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"datjob.io/e2e/cluster/internal/config"
	"datjob.io/e2e/cluster/internal/machine"
	"datjob.io/e2e/cluster/internal/plan"
)

// starter starts parts on the node's thread.
type starter struct {
	layout  plan.Layout
	thread  *machine.Thread
	cgroups []string
	// ended gets an error for each part that ends while `up` waits.
	ended chan error
}

// start starts the part as a process that outlives this one.
func (s *starter) start(part config.Part) error {
	logFile, err := os.Create(s.layout.Log(part.Name))
	if err != nil {
		return fmt.Errorf("cannot create the log of %s: %w", part.Name, err)
	}
	defer logFile.Close()
	command := exec.Cmd{
		// The file itself may not be visible in the node's mount namespace.
		Path: "/proc/self/exe",
		Args: append([]string{"cluster", "part", part.Name}, part.Args...),
		// Not the caller's environment: its proxies and kubeconfig are
		// none of the cluster's.
		Env:         []string{"PATH=" + partsPath, "HOME=/", plan.CgroupsVariable + "=" + strings.Join(s.cgroups, ":")},
		Dir:         s.layout.Dir,
		Stdout:      logFile,
		Stderr:      logFile,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := s.thread.Do(command.Start); err != nil {
		return fmt.Errorf("cannot start %s: %w", part.Name, err)
	}
	if err := writeFile(s.layout.Pid(part.Name), []byte(strconv.Itoa(command.Process.Pid)), 0o644); err != nil {
		return err
	}
	go func() {
		err := command.Wait()
		s.ended <- fmt.Errorf("%s exited: %w; the end of its log:\n%s", part.Name, orEnded(err), logTail(s.layout, part.Name))
	}()
	return nil
}

func orEnded(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func logTail(l plan.Layout, part string) string {
	const lines = 10
	data, err := os.ReadFile(l.Log(part))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// pidOf is the process of a part, if it is alive and in the cluster's cgroups:
// a process id in a file may have been given to another process since.
func pidOf(l plan.Layout, part string, ours []int) (int, bool) {
	data, err := os.ReadFile(l.Pid(part))
	if err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || !machine.Alive(pid) {
		return 0, false
	}
	for _, p := range ours {
		if p == pid {
			return pid, true
		}
	}
	return 0, false
}
