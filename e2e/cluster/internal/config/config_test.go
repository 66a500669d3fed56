package config

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"datjob.io/e2e/cluster/internal/pki"
	"datjob.io/e2e/cluster/internal/plan"
)

var layout = plan.Layout{Dir: "/state/dir"}

func TestKubeconfigHoldsItsCertificates(t *testing.T) {
	data := Kubeconfig("admin", []byte("authority"), pki.Pair{Certificate: []byte("certificate"), Key: []byte("key")})
	var parsed struct {
		CurrentContext string `json:"current-context"`
		Clusters       []struct {
			Cluster struct {
				Server    string `json:"server"`
				Authority string `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
	}
	if err := yaml.UnmarshalStrict(data, &map[string]any{}); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &parsed); err != nil {
		t.Fatal(err)
	}
	cluster := parsed.Clusters[0].Cluster
	authority, _ := base64.StdEncoding.DecodeString(cluster.Authority)
	if cluster.Server != plan.APIServerURL() || string(authority) != "authority" || parsed.CurrentContext != "datjob" {
		t.Errorf("got %s", data)
	}
}

func TestKubeletConfigIsValidYAMLForTheNode(t *testing.T) {
	var parsed map[string]any
	if err := yaml.UnmarshalStrict(KubeletConfig(plan.First, layout), &parsed); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"kind":                        "KubeletConfiguration",
		"cgroupRoot":                  "/datjob/node1",
		"containerRuntimeEndpoint":    "unix:///state/dir/node1/containerd.sock",
		"imageGCHighThresholdPercent": 100.0,
		"failCgroupV1":                false,
	} {
		if parsed[key] != want {
			t.Errorf("%s: got %v, want %v", key, parsed[key], want)
		}
	}
	if parsed["maxPods"].(float64) < 250 {
		t.Error("maxPods is too low")
	}
}

func TestCNIConfigIsValidJSONForTheNode(t *testing.T) {
	for _, node := range []plan.Node{1, 2} {
		data := CNI(node, layout.Node(node))
		var parsed map[string]any
		if err := json.Unmarshal(data, &parsed); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(data), node.PodRange().String()) {
			t.Errorf("pods of %s do not get addresses from its range", node.Name())
		}
	}
}

func TestContainerdKeepsToTheStateDirectory(t *testing.T) {
	for line := range strings.Lines(string(ContainerdConfig(layout.Node(plan.First)))) {
		key, value, found := strings.Cut(strings.TrimSpace(line), " = ")
		if found && strings.HasPrefix(value, `"/`) && key != "bin_dir" && !strings.HasPrefix(value, `"/state/dir/node1/`) {
			t.Errorf("containerd writes outside the state directory: %s", line)
		}
	}
}

func TestAuditPolicyNamesItsGroups(t *testing.T) {
	var parsed struct {
		Rules []struct {
			Level      string   `json:"level"`
			UserGroups []string `json:"userGroups"`
		} `json:"rules"`
	}
	groups := Audit{"system:serviceaccounts:one", "system:serviceaccounts:two"}
	if err := yaml.Unmarshal(groups.Policy(), &parsed); err != nil {
		t.Fatal(err)
	}
	if len(parsed.Rules) != 2 || !slices.Equal(parsed.Rules[0].UserGroups, groups) || parsed.Rules[1].Level != "None" {
		t.Errorf("got %s", groups.Policy())
	}
}

func TestTheAPIServerAuditsOnlyOnRequest(t *testing.T) {
	audits := func(a Audit) bool {
		return slices.ContainsFunc(apiServer(layout, a).Args, func(arg string) bool { return strings.HasPrefix(arg, "--audit-") })
	}
	if audits(nil) || !audits(Audit{"group"}) {
		t.Error("the arguments of the API server do not follow from the groups")
	}
}

func TestEveryPartIsStoppedOnce(t *testing.T) {
	started, stopped := PartNames(), slices.Concat(StopOrder()...)
	slices.Sort(started)
	slices.Sort(stopped)
	if !slices.Equal(started, stopped) {
		t.Errorf("started: %v\nstopped: %v", started, stopped)
	}
	if len(slices.Compact(started)) != len(stopped) {
		t.Error("two parts have one name")
	}
}

func TestEtcdIsStoppedAfterTheAPIServer(t *testing.T) {
	at := func(part string) int {
		return slices.IndexFunc(StopOrder(), func(group []string) bool { return slices.Contains(group, part) })
	}
	if !(at(Kubelet) < at(APIServer) && at(APIServer) < at(Etcd)) {
		t.Errorf("the order is %v", StopOrder())
	}
}

func TestEveryClientHasACertificate(t *testing.T) {
	identities := Identities(plan.First)
	for _, name := range append(Clients(), Admin, APIServer, APIServerKubelet) {
		if identities[name].Name == "" {
			t.Errorf("%s has no certificate", name)
		}
	}
	if groups := identities[Kubelet].Groups; !slices.Contains(groups, "system:nodes") {
		t.Errorf("the kubelet is in %v, and the node authorizer does not know it", groups)
	}
}
