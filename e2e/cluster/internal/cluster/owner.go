// Package cluster brings the cluster up and down and says how it is.
package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"datjob.io/e2e/cluster/internal/plan"
)

// Owner says which state directory the cluster on this machine belongs to. It
// is written before anything is made outside that directory, and removed after
// all of it is gone.
type Owner struct {
	Dir string `json:"dir"`
}

// readOwner gives nil where no cluster is noted.
func readOwner() (*Owner, error) {
	data, err := os.ReadFile(plan.OwnerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the record of the running cluster: %w", err)
	}
	var owner Owner
	if err := json.Unmarshal(data, &owner); err != nil {
		return nil, fmt.Errorf("the record of the running cluster, %s, is corrupt: %w", plan.OwnerFile, err)
	}
	return &owner, nil
}

// ownerOfParts asks the running parts where the note is lost: each runs in its
// state directory. Without it, the cluster of another directory would be taken
// for remains, and ended.
func ownerOfParts(pids []int) *Owner {
	for _, pid := range pids {
		dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err == nil && marked(plan.Layout{Dir: dir}) {
			return &Owner{Dir: dir}
		}
	}
	return nil
}

func (o Owner) write() error {
	data, err := json.Marshal(o)
	if err == nil {
		// Renamed into place: a crash leaves the old note or the new one.
		temporary := plan.OwnerFile + ".new"
		if err = os.WriteFile(temporary, data, 0o644); err == nil {
			err = os.Rename(temporary, plan.OwnerFile)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot write the record of the running cluster: %w", err)
	}
	return nil
}

func removeOwner() error {
	if err := os.Remove(plan.OwnerFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the record of the running cluster: %w", err)
	}
	return nil
}
