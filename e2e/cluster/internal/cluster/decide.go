package cluster

import "fmt"

// Observed is what is found on the machine before anything is done.
type Observed struct {
	// Owner is nil where no cluster is noted.
	Owner *Owner
	// Processes is how many processes are in the cluster's cgroups.
	Processes int
	// Remains says that links, namespaces, cgroups or the state directory of
	// a cluster exist.
	Remains bool
	// Healthy says that the cluster of the directory asked for is healthy.
	Healthy bool
}

// UpAction is what `up` has to do first.
type UpAction int

// What `up` may have to do.
const (
	UpNothing UpAction = iota
	UpStart
	UpCleanAndStart
)

// DecideUp decides for a state directory. A cluster that is up in part is never
// mended: what its parts know of each other is lost, and a fresh one takes
// seconds.
func DecideUp(dir string, o Observed) (UpAction, error) {
	switch {
	case o.Owner == nil && o.Processes == 0 && !o.Remains:
		return UpStart, nil
	case o.Owner != nil && o.Owner.Dir != dir && o.Processes > 0:
		return 0, anotherIsUp(o.Owner.Dir)
	case o.Owner != nil && o.Owner.Dir == dir && o.Healthy:
		return UpNothing, nil
	default:
		return UpCleanAndStart, nil
	}
}

// DecideDown says whether there is something to take down.
func DecideDown(dir string, o Observed) (bool, error) {
	if o.Owner != nil && o.Owner.Dir != dir && o.Processes > 0 {
		return false, anotherIsUp(o.Owner.Dir)
	}
	return o.Owner != nil || o.Processes > 0 || o.Remains, nil
}

func anotherIsUp(dir string) error {
	return fmt.Errorf("the cluster in %s is up, and a machine runs only one; stop it first with `cluster --dir %s down`", dir, dir)
}
