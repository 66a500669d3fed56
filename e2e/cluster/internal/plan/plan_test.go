package plan

import (
	"net/netip"
	"testing"
)

func TestRangesDoNotOverlap(t *testing.T) {
	ranges := []netip.Prefix{NodeRange, ServiceRange, PodRange}
	for i, a := range ranges {
		if a != a.Masked() {
			t.Errorf("%s has bits set behind its prefix", a)
		}
		for _, b := range ranges[i+1:] {
			if a.Overlaps(b) {
				t.Errorf("%s and %s overlap", a, b)
			}
		}
	}
}

func TestAddressesLieInTheirRanges(t *testing.T) {
	if got := First.Address().String(); got != "10.213.0.1" {
		t.Errorf("the first node has %s", got)
	}
	if got := HostAddress().String(); got != "10.213.0.254" {
		t.Errorf("the host has %s", got)
	}
	if got := APIServiceAddress().String(); got != "10.213.128.1" {
		t.Errorf("the service kubernetes has %s", got)
	}
	if got := APIServerURL(); got != "https://10.213.0.1:6443" {
		t.Errorf("the API server is at %s", got)
	}
}

func TestPodRangesOfNodesAreDistinct(t *testing.T) {
	if got := First.PodRange().String(); got != "10.214.0.0/22" {
		t.Errorf("the pods of the first node have %s", got)
	}
	var before netip.Prefix
	for n := First; n <= MaxNodes; n++ {
		r := n.PodRange()
		if !PodRange.Overlaps(r) || r != r.Masked() {
			t.Errorf("the range %s of node %d is not a part of %s", r, n, PodRange)
		}
		if before.IsValid() && before.Overlaps(r) {
			t.Errorf("the ranges %s and %s overlap", before, r)
		}
		before = r
	}
}

func TestLinkNamesFitTheKernel(t *testing.T) {
	for _, n := range []Node{First, MaxNodes} {
		for _, name := range []string{Bridge, n.HostLink(), n.NodeLink()} {
			if len(name) > 15 {
				t.Errorf("the kernel allows 15 characters, %q has %d", name, len(name))
			}
		}
	}
}

func TestFirstNodeHasThePlainNamespaceName(t *testing.T) {
	if First.NetworkNamespace() != "datjob" || Node(2).NetworkNamespace() == "datjob" {
		t.Error("the network namespaces of two nodes have one name")
	}
}
