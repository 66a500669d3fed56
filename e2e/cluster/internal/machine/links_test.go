package machine

import (
	"net/netip"
	"strings"
	"testing"

	"datjob.io/e2e/cluster/internal/plan"
)

func TestCollision(t *testing.T) {
	to, via := netip.MustParsePrefix, netip.MustParseAddr
	for name, test := range map[string]struct {
		route Route
		want  string
	}{
		"default":                       {Route{Via: via("192.0.2.1"), Link: "eth0"}, ""},
		"elsewhere":                     {Route{To: to("10.212.0.0/16"), Link: "eth0"}, ""},
		"a wide network around ours":    {Route{To: to("10.0.0.0/8"), Link: "eth0"}, ""},
		"ours":                          {Route{To: to("10.213.0.0/24"), Link: plan.Bridge}, ""},
		"the node range":                {Route{To: to("10.213.0.0/24"), Link: "eth0"}, "10.213.0.0/24 over eth0"},
		"a part of the service range":   {Route{To: to("10.213.200.0/24"), Link: "br0"}, "10.213.200.0/24 over br0"},
		"one address of the pod range":  {Route{To: to("10.214.3.4/32"), Link: "tun0"}, "10.214.3.4/32 over tun0"},
		"a gateway in one of our range": {Route{Via: via("10.213.0.254"), Link: "eth0"}, "gateway 10.213.0.254"},
	} {
		got := Collision([]Route{test.route})
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
