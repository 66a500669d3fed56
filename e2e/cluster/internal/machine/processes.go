package machine

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Alive says whether a process exists and is no zombie.
func Alive(pid int) bool {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	// "pid (name) state ...": the name may hold anything, even brackets.
	_, after, found := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	return found && !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}

// End asks the processes to end and kills those that have not after the grace
// time.
func End(pids []int, grace time.Duration) {
	pids = slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return !Alive(pid) })
	signal(pids, unix.SIGTERM)
	if !waitGone(pids, grace) {
		signal(pids, unix.SIGKILL)
		waitGone(pids, 2*time.Second)
	}
}

// Kill kills everything that list gives, again and again until it gives
// nothing: a process may start another in the moment before it dies.
func Kill(list func() []int) bool {
	for range 100 {
		pids := slices.DeleteFunc(list(), func(pid int) bool { return !Alive(pid) })
		if len(pids) == 0 {
			return true
		}
		signal(pids, unix.SIGKILL)
		waitGone(pids, 100*time.Millisecond)
	}
	return false
}

func signal(pids []int, s unix.Signal) {
	for _, pid := range pids {
		_ = unix.Kill(pid, s) // It may have gone meanwhile.
	}
}

func waitGone(pids []int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for slices.ContainsFunc(pids, Alive) {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}
