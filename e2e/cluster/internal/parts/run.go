// Package parts holds the programs that the cluster is made of, linked into
// this binary: upstream's own commands, unchanged.
package parts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controller "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"datjob.io/e2e/cluster/internal/config"
	"datjob.io/e2e/cluster/internal/plan"
	"datjob.io/e2e/cluster/internal/volumes"
)

// Run is the part called name, from start to end; it gives the exit status.
func Run(name string, args []string) int {
	if err := prepare(name); err != nil {
		fmt.Fprintf(os.Stderr, "cluster part: %v\n", err)
		return 1
	}
	if name == config.Containerd {
		fmt.Fprintf(os.Stderr, "cluster part: %v\n", execContainerd(args))
		return 1
	}
	commands := map[string]func() *cobra.Command{
		config.Etcd:              etcdCommand,
		config.APIServer:         apiserver.NewAPIServerCommand,
		config.ControllerManager: controller.NewControllerManagerCommand,
		config.Scheduler:         func() *cobra.Command { return scheduler.NewSchedulerCommand() },
		config.Proxy:             proxy.NewProxyCommand,
		config.Kubelet:           func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
		config.CoreDNS:           coreDNSCommand,
		config.Volumes:           volumes.Command,
	}
	command, known := commands[name]
	if !known {
		fmt.Fprintf(os.Stderr, "cluster part: unknown part %q; expected one of %s\n",
			name, strings.Join(config.PartNames(), ", "))
		return 2
	}
	// The commands read os.Args, as the programs they are taken from do.
	os.Args = append([]string{name}, args...)
	return cli.Run(command())
}

func prepare(name string) error {
	for _, dir := range filepath.SplitList(os.Getenv(plan.CgroupsVariable)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("cannot move %s into its cgroup: %w", name, err)
		}
	}
	os.Unsetenv(plan.CgroupsVariable)
	// The directories of volumes are for users of any id to write.
	syscall.Umask(0)
	return setComm(name)
}

func execContainerd(args []string) error {
	path := "/usr/bin/containerd"
	err := syscall.Exec(path, append([]string{path}, args...), os.Environ())
	return fmt.Errorf("cannot run %s: %w; install the Debian package containerd", path, err)
}
