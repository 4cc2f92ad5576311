package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/larkshim/lark/e2e/registry"
	"github.com/larkshim/lark/e2e/suite"
)

const (
	authorityFile = "/tmp/registry-ca.pem"
	// shimsSeenFile, in the stage directory, lists the programs of the shims that were at work.
	shimsSeenFile = "shims-seen"
	// shimPoll: most shims live longer, and one of each program is enough.
	shimPoll = 100 * time.Millisecond
)

// insideOrder tells the process inside the sandbox what to run.
type insideOrder struct {
	Stage string // directory of the programs
	Args  []string
	Env   []string
}

// insideMain runs in the sandbox: it serves the images and runs the tests.
func insideMain() int {
	err := inside()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "conformance:", err)
	return 1
}

func inside() (err error) {
	var order insideOrder
	if err := json.Unmarshal([]byte(os.Args[1]), &order); err != nil {
		return err
	}
	busybox, err := registry.OpenBusybox(registry.BusyboxPath)
	if err != nil {
		return err
	}
	server, err := registry.Serve(context.Background(), registry.Address, registry.ContainerdImages(busybox))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if err := server.WriteCA(authorityFile); err != nil {
		return err
	}
	stop := make(chan struct{})
	watched := make(chan error, 1)
	go func() { watched <- watchShims(filepath.Join(order.Stage, shimsSeenFile), stop) }()

	command := exec.Command(filepath.Join(order.Stage, "test2json"), append([]string{"-t", filepath.Join(order.Stage, "client.test")}, order.Args...)...)
	command.Env = append(append(os.Environ(), "SSL_CERT_FILE="+authorityFile), order.Env...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	err = command.Run()
	close(stop)
	return errors.Join(err, <-watched)
}

// watchShims adds to file a line for every program of a shim that it sees at work: its digest and its path.
func watchShims(file string, stop <-chan struct{}) error {
	out, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	seen := map[string]bool{}
	ticker := time.NewTicker(shimPoll)
	defer ticker.Stop()
	for {
		executables, err := filepath.Glob("/proc/[0-9]*/exe")
		if err != nil {
			return err
		}
		for _, link := range executables {
			exe, err := os.Readlink(link)
			if err != nil || !strings.HasPrefix(filepath.Base(exe), "containerd-shim") || seen[exe] {
				continue // gone meanwhile, or of no interest
			}
			sum, err := suite.Digest(link) // what runs, even if the file has been replaced
			if err != nil {
				continue
			}
			seen[exe] = true
			if _, err := fmt.Fprintln(out, sum, exe); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return nil
		case <-ticker.C:
		}
	}
}
