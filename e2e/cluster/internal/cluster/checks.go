package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"datjob.io/e2e/cluster/internal/plan"
)

// check is one thing that a healthy cluster does.
type check struct {
	name string
	run  func(context.Context, kubernetes.Interface) error
}

// checks are in the order in which they come true.
var checks = []check{
	{"API server", apiServerReady},
	{"node " + plan.First.Name(), nodeReady},
	{"DNS", dnsAnswers},
	{"storage class", storageClassExists},
	{"service account", serviceAccountExists},
}

func apiServerReady(ctx context.Context, client kubernetes.Interface) error {
	if _, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		return fmt.Errorf("the API server at %s is not ready: %w", plan.APIServerURL(), err)
	}
	return nil
}

func nodeReady(ctx context.Context, client kubernetes.Interface) error {
	node, err := client.CoreV1().Nodes().Get(ctx, plan.First.Name(), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("node %s is not registered: %w", plan.First.Name(), err)
	}
	return readyNode(node)
}

// readyNode says why no pod is put on a node.
func readyNode(node *corev1.Node) error {
	i := slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
	switch {
	case i < 0:
		return fmt.Errorf("node %s has no Ready condition yet", node.Name)
	case node.Status.Conditions[i].Status != corev1.ConditionTrue:
		return fmt.Errorf("node %s is not ready: %s", node.Name, node.Status.Conditions[i].Message)
	}
	// The taint of a node that was not ready is taken off a moment later.
	for _, taint := range node.Spec.Taints {
		if taint.Key == corev1.TaintNodeNotReady || taint.Key == corev1.TaintNodeUnreachable {
			return fmt.Errorf("node %s still has the taint %s", node.Name, taint.Key)
		}
	}
	return nil
}

func dnsAnswers(ctx context.Context, _ kubernetes.Interface) error {
	server := netip.AddrPortFrom(plan.First.Address(), 53).String()
	resolver := net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, server)
		},
	}
	name := "kubernetes.default.svc." + plan.ClusterDomain + "."
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	addresses, err := resolver.LookupHost(ctx, name)
	if err != nil {
		return fmt.Errorf("CoreDNS at %s cannot resolve %s: %w", server, name, err)
	}
	if want := plan.APIServiceAddress().String(); !slices.Contains(addresses, want) {
		return fmt.Errorf("CoreDNS resolves %s to %v, expected %s", name, addresses, want)
	}
	return nil
}

func storageClassExists(ctx context.Context, client kubernetes.Interface) error {
	if _, err := client.StorageV1().StorageClasses().Get(ctx, storageClass, metav1.GetOptions{}); err != nil {
		return fmt.Errorf("cannot get the default storage class %s: %w", storageClass, err)
	}
	return nil
}

// serviceAccountExists: without it, no pod can be created in the namespace.
func serviceAccountExists(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("cannot get the service account default: %w", err)
	}
	return nil
}

// until tries f until it succeeds, a part ends, or the time is up.
func until(ctx context.Context, limit time.Duration, ended <-chan error, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("timed out after %s: %w", limit, err)
			}
			return errors.New("interrupted")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
