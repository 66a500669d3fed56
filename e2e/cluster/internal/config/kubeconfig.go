package config

import (
	"encoding/base64"
	"fmt"

	"datjob.io/e2e/cluster/internal/pki"
	"datjob.io/e2e/cluster/internal/plan"
)

// Kubeconfig holds its certificates itself, so that the one file can be handed
// on. The context is called datjob: CoreDNS gets it by name.
func Kubeconfig(user string, authority []byte, client pki.Pair) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: datjob
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: datjob
  context:
    cluster: datjob
    user: %s
current-context: datjob
`, plan.APIServerURL(), base64.StdEncoding.EncodeToString(authority), user,
		base64.StdEncoding.EncodeToString(client.Certificate),
		base64.StdEncoding.EncodeToString(client.Key), user)
}
