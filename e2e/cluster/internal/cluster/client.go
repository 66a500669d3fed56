package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"datjob.io/e2e/cluster/internal/plan"
)

// newClient is a client of the cluster's API server, for people's purposes.
func newClient(l plan.Layout) (kubernetes.Interface, error) {
	kubeconfig, err := os.ReadFile(l.AdminKubeconfig())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no kubeconfig in %s; start a cluster with `cluster up`", l.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the kubeconfig: %w", err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("invalid kubeconfig %s: %w", l.AdminKubeconfig(), err)
	}
	config.Timeout = 2 * time.Second
	config.QPS, config.Burst = 100, 100
	// The API server is on this machine; a proxy would not find it.
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("invalid kubeconfig %s: %w", l.AdminKubeconfig(), err)
	}
	return client, nil
}
