package config

import (
	"fmt"

	"datjob.io/e2e/cluster/internal/plan"
)

// Corefile is the configuration of CoreDNS. There is no cache: the answers come
// from memory as it is, and a cached "no such name" would hold up peers that
// look for each other as they start. in-addr.arpa: c10d looks its peers'
// addresses up and waits for half a second without. The template: there is no
// name server outside to ask, and a resolver that searches ends with the bare
// name; "no such name" is the answer that it would get in a usual cluster.
func Corefile(l plan.Layout) []byte {
	return fmt.Appendf(nil, `.:53 {
    errors
    health 127.0.0.1:%d
    ready 127.0.0.1:%d
    kubernetes %s in-addr.arpa ip6.arpa {
        kubeconfig %s datjob
        pods insecure
        ttl 5
    }
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
`, plan.CoreDNSHealthPort, plan.CoreDNSReadyPort, plan.ClusterDomain, l.Kubeconfig(CoreDNS))
}
