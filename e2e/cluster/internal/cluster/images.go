package cluster

import (
	"fmt"
	"io"
	"os/exec"
	"strings"

	"datjob.io/e2e/cluster/internal/image"
	"datjob.io/e2e/cluster/internal/plan"
)

// LoadImages puts image archives where the kubelet finds them.
func LoadImages(l plan.Layout, archives []string, out io.Writer) error {
	for _, archive := range archives {
		names, err := image.Names(archive)
		if err != nil {
			return err
		}
		if err := importArchive(l, archive, names); err != nil {
			return err
		}
		fmt.Fprintf(out, "Loaded %s: %s.\n", archive, strings.Join(names, ", "))
	}
	return nil
}

func importArchive(l plan.Layout, archive string, names []string) error {
	if len(names) == 0 {
		return fmt.Errorf("%s contains no image name, so pods cannot use it; add a name with `buildah push IMAGE oci-archive:FILE:NAME`", archive)
	}
	if err := ctr(l, "images", "import", archive); err != nil {
		return err
	}
	for _, name := range names {
		if full := image.Full(name); full != name {
			if err := ctr(l, "images", "tag", "--force", name, full); err != nil {
				return err
			}
		}
	}
	return nil
}

// ctr runs containerd's client in the namespace that the kubelet uses.
func ctr(l plan.Layout, args ...string) error {
	socket := l.Node(plan.First).ContainerdSocket()
	command := exec.Command("/usr/bin/ctr", append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("`ctr %s` failed: %w: %s; check that the cluster is up", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
