package config

import (
	"fmt"

	"datjob.io/e2e/cluster/internal/plan"
)

// Corefile is the configuration of CoreDNS. There is no cache: the answers come
// from memory as it is, and a cached "no such name" would hold up peers that
// look for each other as they start. in-addr.arpa: c10d looks its peers'
// addresses up and waits for half a second without.
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
}
`, plan.CoreDNSHealthPort, plan.CoreDNSReadyPort, plan.ClusterDomain, l.Kubeconfig(CoreDNS))
}
