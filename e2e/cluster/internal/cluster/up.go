package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"k8s.io/client-go/kubernetes"

	"datjob.io/e2e/cluster/internal/config"
	"datjob.io/e2e/cluster/internal/machine"
	"datjob.io/e2e/cluster/internal/plan"
)

// startLimit is how long `up` waits for each thing: a machine that compiles
// something else at the same time is slow.
const startLimit = 2 * time.Minute

// Up brings the cluster up. The API server of a new cluster logs the requests
// of the groups in audit.
func Up(ctx context.Context, l plan.Layout, audit config.Audit, out io.Writer) error {
	if err := CheckDir(l.Dir); err != nil {
		return err
	}
	unlock, err := lock(out)
	if err != nil {
		return err
	}
	defer unlock()

	say := steps(out)
	cgroups, err := machine.FindCgroups()
	if err != nil {
		return err
	}
	observed, err := observe(ctx, l, cgroups)
	if err != nil {
		return err
	}
	action, err := DecideUp(l.Dir, observed)
	if err != nil {
		return err
	}
	switch action {
	case UpNothing:
		fmt.Fprintln(out, "The cluster is up and healthy.")
		return nil
	case UpCleanAndStart:
		say("Removing the remains of an earlier cluster.")
		if err := clear(l, observed.Owner, cgroups); err != nil {
			return err
		}
	}
	say("Checking the machine (cgroup v%d).", cgroups.Version)
	if err := checkRequirements(); err != nil {
		return err
	}
	if err := machine.CheckRoutes(); err != nil {
		return err
	}
	if err := bringUp(ctx, l, audit, cgroups, say); err != nil {
		return fmt.Errorf("%w\n`cluster status` shows the state of each part, `cluster logs PART` prints a log, `cluster down` removes everything", err)
	}
	say("The cluster is up.")
	fmt.Fprint(out, usage(l))
	return nil
}

func usage(l plan.Layout) string {
	command := "cluster"
	if l.Dir != plan.DefaultDir {
		command += " --dir " + l.Dir
	}
	return fmt.Sprintf(`
Run the built-in kubectl or helm:     %[1]s kubectl get pods -A
Or use your own:                      export KUBECONFIG=%[2]s
Load images for pods:                 %[1]s load-image FILE.tar
Stop the cluster and remove it all:   %[1]s down
`, command, l.AdminKubeconfig())
}

func bringUp(ctx context.Context, l plan.Layout, audit config.Audit, cgroups machine.Cgroups, say func(string, ...any)) error {
	node := plan.First
	say("Writing certificates and configuration to %s.", l.Dir)
	// First the directory: one that is refused must not be noted as ours.
	if err := makeStateDir(l); err != nil {
		return err
	}
	if err := (Owner{Dir: l.Dir}).write(); err != nil {
		return err
	}
	if err := writeFiles(l, audit); err != nil {
		return err
	}

	say("Creating the network of %s: %s, pods %s, services %s.", node.Name(), node.Address(), node.PodRange(), plan.ServiceRange)
	if err := machine.MakeNetworkNamespace(node); err != nil {
		return err
	}
	if err := machine.MakeLinks(node); err != nil {
		return err
	}
	if err := cgroups.Make(node); err != nil {
		return err
	}
	thread, err := machine.StartThread(node, l)
	if err != nil {
		return err
	}
	defer thread.Stop()
	if err := thread.Do(checkNftables); err != nil {
		return err
	}

	s := &starter{layout: l, thread: thread, cgroups: cgroups.Dirs(node.PartsCgroup()), ended: make(chan error, 16)}
	client, err := newClient(l)
	if err != nil {
		return err
	}
	say("Starting etcd, the API server and containerd.")
	if err := s.startBase(ctx, client, audit); err != nil {
		return err
	}
	say("Starting the controller manager, the scheduler, kube-proxy, CoreDNS, the volume provisioner and the kubelet.")
	for _, part := range config.Rest(l) {
		if err := s.start(part); err != nil {
			return err
		}
	}
	say("Waiting for the node, DNS and the default service account.")
	for _, c := range checks {
		run := func(ctx context.Context) error { return c.run(ctx, client) }
		if err := until(ctx, startLimit, s.ended, run); err != nil {
			return err
		}
	}
	return nil
}

// startBase starts the parts that the others wait for and waits for them.
func (s *starter) startBase(ctx context.Context, client kubernetes.Interface, audit config.Audit) error {
	for _, part := range config.Base(s.layout, audit) {
		if err := s.start(part); err != nil {
			return err
		}
	}
	socket := s.layout.Node(plan.First).ContainerdSocket()
	err := until(ctx, startLimit, s.ended, func(context.Context) error {
		connection, err := net.Dial("unix", socket)
		if err != nil {
			return fmt.Errorf("cannot connect to containerd: %w", err)
		}
		return connection.Close()
	})
	if err != nil {
		return err
	}
	if err := LoadImages(s.layout, []string{s.layout.PauseImage()}, io.Discard); err != nil {
		return err
	}
	ready := func(ctx context.Context) error { return apiServerReady(ctx, client) }
	if err := until(ctx, startLimit, s.ended, ready); err != nil {
		return err
	}
	return createObjects(ctx, client)
}

// observe looks at what is there before `up` or `down` does anything.
func observe(ctx context.Context, l plan.Layout, cgroups machine.Cgroups) (Observed, error) {
	owner, err := readOwner()
	if err != nil {
		return Observed{}, err
	}
	if owner == nil {
		owner = ownerOfParts(cgroups.Processes(plan.First.PartsCgroup()))
	}
	o := Observed{Owner: owner, Processes: len(cgroups.Processes(plan.CgroupRoot))}
	// After a restart of the machine, the state directory alone is left.
	o.Remains = marked(l) || cgroups.Exists(plan.CgroupRoot) || machine.LinksExist(plan.First) || machine.NetworkNamespaceExists(plan.First)
	if owner != nil && owner.Dir == l.Dir && o.Processes > 0 {
		o.Healthy = len(Problems(Status(ctx, l, cgroups))) == 0
	}
	return o, nil
}

// steps prints one line a step, with the seconds since the start.
func steps(out io.Writer) func(string, ...any) {
	start := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(out, "%5.1f s  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
}
