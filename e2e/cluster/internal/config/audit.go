package config

import (
	"fmt"
	"strings"

	"datjob.io/e2e/cluster/internal/plan"
)

// maxAuditMegabytes is above what a test logs: a log that starts anew would be
// read in part.
const maxAuditMegabytes = 8192

// Audit are the groups of users whose requests the API server logs, such as
// system:serviceaccounts:NAMESPACE. Without a group it logs none.
type Audit []string

// Policy is the API server's audit policy: who requested what, without the
// objects. A request is logged when it ends, a watch also when it starts.
func (a Audit) Policy() []byte {
	quoted := make([]string, 0, len(a))
	for _, group := range a {
		quoted = append(quoted, fmt.Sprintf("%q", group))
	}
	return fmt.Appendf(nil, `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: [%s]
- level: None
`, strings.Join(quoted, ", "))
}

func (a Audit) arguments(l plan.Layout) []string {
	if len(a) == 0 {
		return nil
	}
	return []string{
		"--audit-policy-file=" + l.AuditPolicy(),
		"--audit-log-path=" + l.AuditLog(),
		fmt.Sprintf("--audit-log-maxsize=%d", maxAuditMegabytes),
	}
}
