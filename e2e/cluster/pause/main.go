// The program of the pause image. Without arguments it does what the pause
// container of Kubernetes does: it holds the pod's namespaces open and, as
// process 1 of a pod with a shared process namespace, reaps orphans. With
// arguments it is a tool for tests, as the image has no shell:
//
//	pause lookup NAME        prints the addresses of a name
//	pause write FILE TEXT    writes a file
//	pause serve ADDRESS TEXT answers every connection with a line
//	pause fetch ADDRESS      prints what is answered there
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		pause()
		return
	}
	if err := tool(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "pause: %v\n", err)
		os.Exit(1)
	}
}

func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		// One signal may stand for several children.
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if pid <= 0 || err != nil {
				break
			}
		}
	}
}

func tool(name string, args []string) error {
	switch {
	case name == "lookup" && len(args) == 1:
		return lookup(args[0])
	case name == "write" && len(args) == 2:
		return os.WriteFile(args[0], []byte(args[1]+"\n"), 0o666)
	case name == "serve" && len(args) == 2:
		return serve(args[0], args[1])
	case name == "fetch" && len(args) == 1:
		return fetch(args[0])
	}
	return fmt.Errorf("unknown command %q; expected `lookup NAME`, `write FILE TEXT`, `serve ADDRESS TEXT` or `fetch ADDRESS`", os.Args[1:])
}

func lookup(name string) error {
	addresses, err := net.LookupHost(name)
	for _, address := range addresses {
		fmt.Println(address)
	}
	return err
}

func fetch(address string) error {
	connection, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	// So that a server that wants to be spoken to first hangs up.
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, connection)
	return err
}

func serve(address, text string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Printf("Serving on %s.\n", listener.Addr())
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintln(connection, text)
		connection.Close()
	}
}
