package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"datjob.io/e2e/cluster/internal/cluster"
	"datjob.io/e2e/cluster/internal/machine"
	"datjob.io/e2e/cluster/internal/parts"
	"datjob.io/e2e/cluster/internal/plan"
)

const dirVariable = "DATJOB_CLUSTER_DIR"

// status is the exit status of a command that has said all there is to say.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := rootCommand().ExecuteContext(ctx)
	var s status
	switch {
	case err == nil:
		return 0
	case errors.As(err, &s):
		return int(s)
	}
	fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
	return 1
}

func dirFromEnvironment() string {
	return cmp.Or(os.Getenv(dirVariable), plan.DefaultDir)
}

func rootCommand() *cobra.Command {
	var dir string
	layout := func() plan.Layout {
		if absolute, err := filepath.Abs(dir); err == nil {
			dir = absolute
		}
		return plan.Layout{Dir: dir}
	}
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "A single-node Kubernetes on this machine, isolated from its other software",
		SilenceUsage:  true,
		SilenceErrors: true,
		// `cluster --dir D kubectl ...`: the flags before the command's
		// name are ours, those behind it kubectl's.
		TraverseChildren: true,
	}
	root.PersistentFlags().StringVar(&dir, "dir", dirFromEnvironment(),
		"state directory (or set "+dirVariable+")")
	// A flag that the libraries of Kubernetes put into every program.
	_ = pflag.CommandLine.MarkHidden("version")
	root.AddCommand(upCommand(layout), downCommand(layout), statusCommand(layout), kubeconfigCommand(layout),
		loadImageCommand(layout), logsCommand(layout), partCommand(),
		clientCommand("kubectl", parts.Kubectl, layout), clientCommand("helm", parts.Helm, layout))
	return root
}

func upCommand(layout func() plan.Layout) *cobra.Command {
	var audit []string
	command := &cobra.Command{
		Use:   "up",
		Short: "Start the cluster and wait until pods can run; do nothing if it is up and healthy",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cluster.NeedRoot("up"); err != nil {
				return err
			}
			return cluster.Up(c.Context(), layout(), audit, c.OutOrStdout())
		},
	}
	command.Flags().StringArrayVar(&audit, "audit-group", nil,
		"log the API requests of this group of users to log/audit.log in the state directory (repeatable; only for a cluster that is not up)")
	return command
}

func downCommand(layout func() plan.Layout) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop the cluster and remove everything that it created, including volumes",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cluster.NeedRoot("down"); err != nil {
				return err
			}
			return cluster.Down(c.Context(), layout(), c.OutOrStdout())
		},
	}
}

func statusCommand(layout func() plan.Layout) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the state of each part; exit with status 1 if the cluster is not healthy",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cgroups, err := machine.FindCgroups()
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			if up, err := cluster.Exists(layout(), cgroups); err != nil || !up {
				fmt.Fprintf(out, "No cluster is up in %s. Start one with `cluster up`.\n", layout().Dir)
				return cmp.Or(err, error(status(1)))
			}
			lines := cluster.Status(c.Context(), layout(), cgroups)
			for _, line := range lines {
				text := line.Fine
				if line.Problem != nil {
					text = line.Problem.Error()
				}
				fmt.Fprintf(out, "%-24s %s\n", line.Name, text)
			}
			if problems := cluster.Problems(lines); len(problems) > 0 {
				fmt.Fprintf(out, "The cluster is not healthy; missing: %s. Restart it with `cluster up`.\n", strings.Join(problems, ", "))
				return status(1)
			}
			fmt.Fprintln(out, "The cluster is healthy.")
			return nil
		},
	}
}

func kubeconfigCommand(layout func() plan.Layout) *cobra.Command {
	var path bool
	command := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the administrator's kubeconfig",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			file := layout().AdminKubeconfig()
			data, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("cannot read the kubeconfig: %w; start the cluster with `cluster up`", err)
			}
			if path {
				data = []byte(file + "\n")
			}
			_, err = c.OutOrStdout().Write(data)
			return err
		},
	}
	command.Flags().BoolVar(&path, "path", false, "print the path of the file instead of its content")
	return command
}

func loadImageCommand(layout func() plan.Layout) *cobra.Command {
	return &cobra.Command{
		Use:   "load-image FILE.tar...",
		Short: "Load image archives (oci-archive or docker-archive) for pods",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return cluster.LoadImages(layout(), args, c.OutOrStdout())
		},
	}
}

// partCommand is how the binary starts its own parts; not for people.
func partCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "part NAME [FLAGS]",
		Hidden:             true,
		DisableFlagParsing: true,
		Args:               cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return status(parts.Run(args[0], args[1:]))
		},
	}
}
