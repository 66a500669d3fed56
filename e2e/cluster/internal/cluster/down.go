package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"datjob.io/e2e/cluster/internal/config"
	"datjob.io/e2e/cluster/internal/machine"
	"datjob.io/e2e/cluster/internal/plan"
)

// Parts get this long to end by themselves. All data is thrown away, so it is
// for the sake of quiet logs alone.
const stopGrace = 1500 * time.Millisecond

// Down ends the cluster and removes all of it.
func Down(ctx context.Context, l plan.Layout, out io.Writer) error {
	if err := CheckDir(l.Dir); err != nil {
		return err
	}
	unlock, err := lock(out)
	if err != nil {
		return err
	}
	defer unlock()
	cgroups, err := machine.FindCgroups()
	if err != nil {
		return err
	}
	observed, err := observe(ctx, l, cgroups)
	if err != nil {
		return err
	}
	something, err := DecideDown(l.Dir, observed)
	if err != nil {
		return err
	}
	if !something {
		fmt.Fprintln(out, "No cluster is up.")
		return removeStateDir(l)
	}
	if err := clear(l, observed.Owner, cgroups); err != nil {
		return err
	}
	fmt.Fprintln(out, "The cluster is down; everything that it created is removed.")
	return nil
}

// clear ends and removes a cluster in whatever state it is: healthy, killed in
// part, or never quite started. Each step takes what is not there for done.
func clear(l plan.Layout, owner *Owner, cgroups machine.Cgroups) error {
	owned := l
	if owner != nil {
		owned = plan.Layout{Dir: owner.Dir}
	}
	stop(owned, cgroups)
	left := func() []int { return cgroups.Processes(plan.CgroupRoot) }
	if !machine.Kill(left) {
		return fmt.Errorf("cannot kill processes %v of the cluster; they may be blocked in a system call", left())
	}
	if err := errors.Join(
		machine.RemoveLinks(plan.First),
		machine.RemoveNetworkNamespace(plan.First),
		cgroups.Remove(plan.CgroupRoot),
		removeStateDir(owned),
		removeStateDir(l),
	); err != nil {
		return err
	}
	return removeOwner()
}

// stop ends the parts in order, the pods after the kubelet.
func stop(l plan.Layout, cgroups machine.Cgroups) {
	for i, group := range config.StopOrder() {
		ours := cgroups.Processes(plan.CgroupRoot)
		if len(ours) == 0 {
			return
		}
		var pids []int
		for _, name := range group {
			if pid, alive := pidOf(l, name, ours); alive {
				pids = append(pids, pid)
			}
		}
		machine.End(pids, stopGrace)
		if i == 0 {
			machine.Kill(func() []int { return cgroups.Processes(plan.First.PodsCgroup()) })
		}
	}
}
