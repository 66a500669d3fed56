package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"datjob.io/e2e/cluster/internal/config"
	"datjob.io/e2e/cluster/internal/plan"
)

func logsCommand(layout func() plan.Layout) *cobra.Command {
	var follow bool
	command := &cobra.Command{
		Use:       "logs PART",
		Short:     "Print the log of a part: " + strings.Join(config.PartNames(), ", "),
		Args:      cobra.ExactArgs(1),
		ValidArgs: config.PartNames(),
		RunE: func(_ *cobra.Command, args []string) error {
			if !slices.Contains(config.PartNames(), args[0]) {
				return fmt.Errorf("unknown part %q; expected one of %s", args[0], strings.Join(config.PartNames(), ", "))
			}
			return printLog(layout().Log(args[0]), follow)
		},
	}
	command.Flags().BoolVarP(&follow, "follow", "f", false, "continue to print as the log grows")
	return command
}

// printLog leaves the work to cat or tail, which know all about it.
func printLog(file string, follow bool) error {
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("cannot read the log: %w; start the cluster with `cluster up`", err)
	}
	command := []string{"/usr/bin/cat", file}
	if follow {
		command = []string{"/usr/bin/tail", "-n", "+1", "-F", file}
	}
	return syscall.Exec(command[0], command, os.Environ())
}
