package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"datjob.io/e2e/cluster/internal/plan"
)

const namespacesDir = "/run/netns"

// NetworkNamespacePath is where a node's network namespace is held, as `ip
// netns` would hold it.
func NetworkNamespacePath(node plan.Node) string {
	return filepath.Join(namespacesDir, node.NetworkNamespace())
}

// MakeNetworkNamespace makes a node's network namespace and holds it under
// /run/netns, so that `ip netns exec` finds it. (`ip netns add` is not used: it
// mounts /run/netns onto itself and leaves that behind.)
func MakeNetworkNamespace(node plan.Node) error {
	path := NetworkNamespacePath(node)
	if err := os.MkdirAll(namespacesDir, 0o755); err != nil {
		return fmt.Errorf("cannot create the directory of network namespaces: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("cannot create the network namespace %s: %w", node.NetworkNamespace(), err)
	}
	f.Close()
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot create a network namespace: %w; the kernel must have CONFIG_NET_NS", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot mount the network namespace at %s: %w", path, err)
		}
		return nil
	})
}

// NetworkNamespaceExists says whether it is held.
func NetworkNamespaceExists(node plan.Node) bool { return exists(NetworkNamespacePath(node)) }

// RemoveNetworkNamespace lets a node's network namespace go, and its links and
// rules with it.
func RemoveNetworkNamespace(node plan.Node) error {
	path := NetworkNamespacePath(node)
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot unmount the network namespace at %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove %s: %w", path, err)
	}
	_ = os.Remove(namespacesDir) // It stays if it is not empty.
	return nil
}

// Thread is an OS thread in a node's network namespace and in a separate
// mount namespace. What it starts is in them too.
type Thread struct{ work chan func() }

// StartThread makes the mount namespace and enters both. The namespaces last
// as long as a process is in them: nothing holds the mount namespace by name.
func StartThread(node plan.Node, l plan.Layout) (*Thread, error) {
	t := &Thread{work: make(chan func())}
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread dies with this goroutine, no other
		// one may ever run in its namespaces.
		runtime.LockOSThread()
		err := enter(node, l)
		ready <- err
		if err != nil {
			return
		}
		for f := range t.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return t, nil
}

// Do runs f on the thread.
func (t *Thread) Do(f func() error) error {
	done := make(chan error)
	t.work <- func() { done <- f() }
	return <-done
}

// Stop ends the thread.
func (t *Thread) Stop() { close(t.work) }

func enter(node plan.Node, l plan.Layout) error {
	f, err := os.Open(NetworkNamespacePath(node))
	if err != nil {
		return fmt.Errorf("cannot open the network namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot create a mount namespace: %w", err)
	}
	if err := hideHost(l.Dir, l.Node(node)); err != nil {
		return err
	}
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot enter the network namespace: %w", err)
	}
	return nil
}

// onOwnThread runs f on a thread that is thrown away with what f changed of it.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}
