package machine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"datjob.io/e2e/cluster/internal/plan"
)

// MakeLinks joins a node's network namespace to the host: a bridge on the
// host, and a veth pair from the bridge into the namespace. The host gets
// routes to services and pods, so that a test on the host can dial them.
func MakeLinks(node plan.Node) error {
	if err := makeHostEnd(node); err != nil {
		return fmt.Errorf("cannot create the link to %s on the host: %w; the kernel must support bridge and veth", node.Name(), err)
	}
	if err := makeNodeEnd(node); err != nil {
		return fmt.Errorf("cannot create the link to %s in its network namespace: %w", node.Name(), err)
	}
	return nil
}

func makeHostEnd(node plan.Node) error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = plan.Bridge
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("bridge %s: %w", plan.Bridge, err)
	}
	address := netlink.Addr{IPNet: ipNet(netip.PrefixFrom(plan.HostAddress(), plan.NodeRange.Bits()))}
	if err := netlink.AddrAdd(bridge, &address); err != nil {
		return fmt.Errorf("address %s: %w", address, err)
	}
	namespace, err := netns.GetFromPath(NetworkNamespacePath(node))
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", node.NetworkNamespace(), err)
	}
	defer namespace.Close()
	veth := &netlink.Veth{
		LinkAttrs:     netlink.NewLinkAttrs(),
		PeerName:      node.NodeLink(),
		PeerNamespace: netlink.NsFd(namespace),
	}
	veth.Name = node.HostLink()
	veth.MasterIndex = bridge.Attrs().Index
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth pair %s: %w", veth.Name, err)
	}
	for _, link := range []netlink.Link{veth, bridge} {
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("link %s: %w", link.Attrs().Name, err)
		}
	}
	for _, to := range []netip.Prefix{plan.ServiceRange, node.PodRange()} {
		route := netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: ipNet(to), Gw: ip(node.Address())}
		if err := netlink.RouteAdd(&route); err != nil {
			return fmt.Errorf("route to %s: %w", to, err)
		}
	}
	return nil
}

func makeNodeEnd(node plan.Node) error {
	namespace, err := netns.GetFromPath(NetworkNamespacePath(node))
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", node.NetworkNamespace(), err)
	}
	defer namespace.Close()
	inside, err := netlink.NewHandleAt(namespace)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", node.NetworkNamespace(), err)
	}
	defer inside.Close()
	for _, name := range []string{"lo", node.NodeLink()} {
		link, err := inside.LinkByName(name)
		if err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
		if name != "lo" {
			address := netlink.Addr{IPNet: ipNet(netip.PrefixFrom(node.Address(), plan.NodeRange.Bits()))}
			if err := inside.AddrAdd(link, &address); err != nil {
				return fmt.Errorf("address %s: %w", address, err)
			}
		}
		if err := inside.LinkSetUp(link); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
		if name == "lo" {
			continue
		}
		// Processes of the node dial services too, the API server its
		// webhooks. The kernel asks for a route before kube-proxy's rules
		// turn the address into a pod's. There is no default route: what
		// is outside the cluster fails at once, not after a timeout.
		route := netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(plan.ServiceRange), Gw: ip(plan.HostAddress())}
		if err := inside.RouteAdd(&route); err != nil {
			return fmt.Errorf("route to %s: %w", plan.ServiceRange, err)
		}
	}
	return nil
}

// RemoveLinks removes the links of a node and the bridge.
func RemoveLinks(node plan.Node) error {
	for _, name := range []string{node.HostLink(), plan.Bridge} {
		link, err := netlink.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue
		}
		if err == nil {
			err = netlink.LinkDel(link)
		}
		if err != nil {
			return fmt.Errorf("cannot remove the link %s: %w", name, err)
		}
	}
	return nil
}

// LinksExist says whether a link of the node is on the host.
func LinksExist(node plan.Node) bool {
	for _, name := range []string{node.HostLink(), plan.Bridge} {
		if _, err := netlink.LinkByName(name); err == nil {
			return true
		}
	}
	return false
}

// CheckRoutes looks for routes and addresses of the host in the ranges that
// the cluster takes.
func CheckRoutes() error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("cannot read the routes of the host: %w", err)
	}
	var found []Route
	for _, r := range routes {
		route := Route{Link: linkName(r.LinkIndex)}
		if r.Dst != nil {
			route.To = prefix(r.Dst)
		}
		if r.Gw != nil {
			route.Via, _ = netip.AddrFromSlice(r.Gw.To4())
		}
		found = append(found, route)
	}
	if taken := Collision(found); taken != "" {
		return fmt.Errorf("%s; it conflicts with the ranges of the cluster: %s (nodes), %s (services) and %s (pods); remove the route, or change the ranges in e2e/cluster/internal/plan/addresses.go and rebuild",
			taken, plan.NodeRange, plan.ServiceRange, plan.PodRange)
	}
	return nil
}

func linkName(index int) string {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return "unknown"
	}
	return link.Attrs().Name
}

// Route is a route of the host, as far as it matters here.
type Route struct {
	// To is not valid for a default route.
	To   netip.Prefix
	Via  netip.Addr
	Link string
}

// Collision says in words which route is in the way, or nothing. A wide route
// around one of our ranges is not: ours are narrower and win, and what is lost
// of the wide one is a range that nobody has shown to be used. A gateway in one
// of our ranges would be lost.
func Collision(routes []Route) string {
	for _, route := range routes {
		if strings.HasPrefix(route.Link, plan.Bridge) {
			continue
		}
		for _, ours := range []netip.Prefix{plan.NodeRange, plan.ServiceRange, plan.PodRange} {
			if route.To.IsValid() && route.To.Bits() >= ours.Bits() && ours.Contains(route.To.Addr()) {
				return fmt.Sprintf("the host has a route to %s over %s", route.To, route.Link)
			}
			if route.Via.IsValid() && ours.Contains(route.Via) {
				return fmt.Sprintf("the host has a route via the gateway %s over %s", route.Via, route.Link)
			}
		}
	}
	return ""
}

func ip(a netip.Addr) net.IP { return net.IP(a.AsSlice()) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: ip(p.Addr()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) netip.Prefix {
	address, _ := netip.AddrFromSlice(n.IP.To4())
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(address, ones)
}
