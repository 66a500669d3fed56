package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"datjob.io/e2e/cluster/internal/plan"
)

func clientCommand(name string, main func([]string) int, layout func() plan.Layout) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Short:              "Run " + name + " with this cluster's kubeconfig, unless KUBECONFIG is set",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			return status(client(main, layout().Dir, args))
		},
	}
}

// client runs kubectl or helm.
func client(main func([]string) int, dir string, args []string) int {
	if os.Getenv("KUBECONFIG") == "" {
		kubeconfig := plan.Layout{Dir: dir}.AdminKubeconfig()
		// Never another cluster's, in the caller's home, if ours is missing.
		os.Setenv("KUBECONFIG", kubeconfig)
		if _, err := os.Stat(kubeconfig); err != nil {
			fmt.Fprintf(os.Stderr, "cluster: no cluster is up in %s, so only commands that need no cluster work; start one with `cluster up`\n", dir)
		}
	}
	withoutProxy()
	return main(args)
}

// withoutProxy: the API server is on this machine, where no proxy finds it.
func withoutProxy() {
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		hosts := append(strings.FieldsFunc(os.Getenv(name), func(r rune) bool { return r == ',' }), plan.First.Address().String())
		os.Setenv(name, strings.Join(hosts, ","))
	}
}
