package parts

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
	"github.com/spf13/cobra"
)

func coreDNSCommand() *cobra.Command {
	return &cobra.Command{
		Use: "coredns",
		// CoreDNS parses os.Args itself.
		DisableFlagParsing: true,
		Run: func(*cobra.Command, []string) {
			// Only what the Corefile uses is linked in; a question goes
			// through the plugins in this order.
			dnsserver.Directives = []string{"errors", "health", "ready", "kubernetes", "template"}
			coremain.Run()
		},
	}
}
