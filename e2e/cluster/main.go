// One binary that is a real single-node Kubernetes: `cluster up`.
package main

import (
	"os"
	"path/filepath"

	"datjob.io/e2e/cluster/internal/parts"
)

func main() {
	// By a symbolic link named kubectl or helm, it is that.
	switch filepath.Base(os.Args[0]) {
	case "kubectl":
		os.Exit(client(parts.Kubectl, dirFromEnvironment(), os.Args[1:]))
	case "helm":
		os.Exit(client(parts.Helm, dirFromEnvironment(), os.Args[1:]))
	}
	os.Exit(run())
}
