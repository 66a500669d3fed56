package volumes

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Command runs the provisioner until it is asked to stop.
func Command() *cobra.Command {
	var kubeconfig, dir string
	command := &cobra.Command{
		Use:          "volumes",
		SilenceUsage: true,
		RunE: func(c *cobra.Command, _ []string) error {
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return fmt.Errorf("invalid kubeconfig %s: %w", kubeconfig, err)
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return fmt.Errorf("invalid kubeconfig %s: %w", kubeconfig, err)
			}
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			return newProvisioner(client, dir).run(ctx)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig of the API server")
	command.Flags().StringVar(&dir, "volume-dir", "", "parent directory of the volumes")
	return command
}
