package parts

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

func etcdCommand() *cobra.Command {
	var dir, client, peer string
	command := &cobra.Command{
		Use:          "etcd",
		SilenceUsage: true,
		RunE:         func(*cobra.Command, []string) error { return runEtcd(dir, client, peer) },
	}
	command.Flags().StringVar(&dir, "data-dir", "etcd", "data directory")
	command.Flags().StringVar(&client, "client-url", "http://127.0.0.1:2379", "URL to serve clients at")
	command.Flags().StringVar(&peer, "peer-url", "http://127.0.0.1:2380", "URL to serve peers at")
	return command
}

func runEtcd(dir, client, peer string) error {
	clientURL, err := url.Parse(client)
	if err != nil {
		return fmt.Errorf("--client-url: %w", err)
	}
	peerURL, err := url.Parse(peer)
	if err != nil {
		return fmt.Errorf("--peer-url: %w", err)
	}
	c := embed.NewConfig()
	c.Dir = dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*clientURL}, []url.URL{*clientURL}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	// The data is thrown away with the cluster, and a slow disk must not
	// slow it down.
	c.UnsafeNoFsync = true
	// At level warn it logs every slow request.
	c.LogLevel = "error"

	server, err := embed.StartEtcd(c)
	if err != nil {
		return fmt.Errorf("cannot start etcd in %s: %w", dir, err)
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	select {
	case <-stop:
		return nil
	case err := <-server.Err():
		return fmt.Errorf("etcd stopped: %w", err)
	}
}
