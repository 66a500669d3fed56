package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"datjob.io/e2e/cluster/internal/config"
	"datjob.io/e2e/cluster/internal/machine"
	"datjob.io/e2e/cluster/internal/plan"
)

// Line is one line of the status: a part or a check.
type Line struct {
	Name string
	// Fine is what there is to say when Problem is nil.
	Fine    string
	Problem error
}

// Status looks at every part and runs every check.
func Status(ctx context.Context, l plan.Layout, cgroups machine.Cgroups) []Line {
	var lines []Line
	ours := cgroups.Processes(plan.CgroupRoot)
	for _, name := range config.PartNames() {
		line := Line{Name: name}
		if pid, alive := pidOf(l, name, ours); alive {
			line.Fine = fmt.Sprintf("running as process %d", pid)
		} else {
			line.Problem = errors.New("not running")
		}
		lines = append(lines, line)
	}
	return append(lines, runChecks(ctx, l)...)
}

// Exists says whether there is a cluster, healthy or not, with this state
// directory.
func Exists(l plan.Layout, cgroups machine.Cgroups) (bool, error) {
	owner, err := readOwner()
	return owner != nil && owner.Dir == l.Dir && len(cgroups.Processes(plan.CgroupRoot)) > 0, err
}

// runChecks runs them at once: when nothing answers, each takes seconds.
func runChecks(ctx context.Context, l plan.Layout) []Line {
	client, err := newClient(l)
	lines := make([]Line, len(checks))
	var wait sync.WaitGroup
	for i, c := range checks {
		lines[i] = Line{Name: c.name, Fine: "healthy", Problem: err}
		if err == nil {
			wait.Go(func() { lines[i].Problem = c.run(ctx, client) })
		}
	}
	wait.Wait()
	return lines
}

// Problems are the names of what is not fine.
func Problems(lines []Line) []string {
	var names []string
	for _, line := range lines {
		if line.Problem != nil {
			names = append(names, line.Name)
		}
	}
	return names
}
