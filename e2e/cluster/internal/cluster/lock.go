package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// lock keeps two of `up` and `down` from running at once. An abstract socket
// leaves no file behind and is let go by the kernel whatever happens to us.
func lock(out io.Writer) (func(), error) {
	address := &net.UnixAddr{Name: "@datjob-cluster", Net: "unix"}
	for reported := false; ; {
		listener, err := net.ListenUnix("unix", address)
		if err == nil {
			return func() { listener.Close() }, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("cannot acquire the lock on the cluster: %w", err)
		}
		if !reported {
			fmt.Fprintln(out, "Waiting for another `cluster up` or `cluster down` to finish.")
			reported = true
		}
		time.Sleep(100 * time.Millisecond)
	}
}
