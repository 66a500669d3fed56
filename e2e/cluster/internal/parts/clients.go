package parts

import (
	"errors"
	"log/slog"
	"os"

	helmcmd "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // What kubectl and helm link in as well.
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
)

// Kubectl is kubectl's main.
func Kubectl(args []string) int {
	os.Args = append([]string{"kubectl"}, args...)
	// The command is made with the verbosity asked for, as upstream does.
	_, _ = logs.GlogSetter(kubectlcmd.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // It prints the error and exits.
	}
	return 0
}

// Helm is helm's main.
func Helm(args []string) int {
	os.Args = append([]string{"helm"}, args...)
	// Without it, field managers would be called after this binary.
	kube.ManagedFieldsManager = "helm"
	command, err := helmcmd.NewRootCmd(os.Stdout, args, helmcmd.SetupLogging)
	if err != nil {
		slog.Warn("command failed", slog.Any("error", err))
		return 1
	}
	if err := command.Execute(); err != nil {
		var status helmcmd.CommandError
		if errors.As(err, &status) {
			return status.ExitCode
		}
		return 1
	}
	return 0
}
