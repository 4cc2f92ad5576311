// Package run is `lark run`: one container under a real shim, without a daemon. It
// plays containerd towards the shim (package shimclient), shows the events as they
// come and has their order checked (package order).
//
// The parts: a runner drives the container and its execs through the task API; a
// screen shares the terminal between the container's output and the table of events; a
// terminal puts our own terminal into raw mode. What the runner began has ended when Run
// returns, whichever way it returns.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/shimclient"
	"github.com/larkshim/lark/internal/spec"
)

// Every wait of this package.
const (
	// lastEventsTimeout bounds the wait for events that are still to come when all
	// processes have ended. A shim that retries an event does so after a second.
	lastEventsTimeout = 5 * time.Second
	// outputTimeout bounds the wait for the end of the container's output after the
	// shim has deleted it: by then all of it lies in the FIFO.
	outputTimeout = 2 * time.Second
	// killRetry is the pause between two tries to kill the container: a kill may come
	// before the runtime can serve it.
	killRetry = 100 * time.Millisecond
	// killCallTimeout bounds one Kill call.
	killCallTimeout = 10 * time.Second
)

// namespace is the containerd namespace that the shim is told.
const namespace = "lark"

// Options are what the command line says.
type Options struct {
	Shim    string // name or path; empty: lark's own
	Runtime string // name or path of the OCI runtime

	Bundle   string // an OCI bundle to run; or
	Rootfs   string // a root filesystem; or neither: one made of busybox
	ReadOnly bool
	HostPID  bool
	Env      []string
	Dir      string
	Args     []string // the command; empty: the bundle's, else a default

	Terminal    bool
	Interactive bool

	Execs    int
	Parallel int // execs at once; 0: all
	ExecArgs []string

	Quiet bool // no table of events
	JSON  bool // events and summary as lines of JSON
	Debug bool // show the shim's log

	Stdin          *os.File
	Stdout, Stderr *os.File
}

// Interrupt is how a user ends a run before its time. Kill is closed first: the
// container is killed and everything ends in order. The context of Run is cancelled
// for the impatient: nothing is waited for any more.
type Interrupt struct {
	Kill <-chan struct{}
}

// Outcome is how a run ended.
type Outcome struct {
	// ID is the container's, and the name of its cgroup.
	ID string
	// Status is the container's, or 128 and the signal's number.
	Status uint32
	// Ended is true when the container was ended because its execs were done.
	Ended bool
	// Interrupted is true when the user ended it.
	Interrupted bool
	Counts      order.Counts
	Violations  []order.Violation
	// FailedExecs could not be started though the container was running.
	FailedExecs int
}

// ErrAborted is returned by Run when its context was cancelled.
var ErrAborted = errors.New("interrupted: the container was killed and cleared away, nothing was waited for")

// Run runs the container. An error means that it could not be run to its end or that
// something could not be cleared away; a broken order is no error but in the Outcome.
func Run(ctx context.Context, in Interrupt, o Options) (_ *Outcome, err error) {
	shim, runtime, err := binaries(o)
	if err != nil {
		return nil, err
	}
	home, err := shimclient.NewHome("")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	id := "lark-" + filepath.Base(home.Dir)[len("lark-"):]
	s, err := specification(ctx, o, home, id)
	if err != nil {
		return nil, err
	}
	r := newRunner(o, id, s)
	defer r.screen.release()
	sink, err := shimclient.NewSink(home, slog.New(slog.NewTextHandler(o.Stderr, nil)), r.observe)
	if err != nil {
		return nil, err
	}
	defer sink.Close()
	b, err := home.NewBundle(id, s)
	if err != nil {
		return nil, err
	}
	cfg := shimclient.Config{Binary: shim, Runtime: runtime, Namespace: namespace, Home: home, Sink: sink, Debug: o.Debug}
	if o.Debug {
		cfg.Log = r.screen.stderr()
	}
	if r.shim, err = shimclient.Start(ctx, cfg, b); err != nil {
		return nil, err
	}
	runErr := r.run(ctx, in, b)
	if ctx.Err() != nil {
		runErr = ErrAborted // what else went wrong then was our own doing
	}
	err = errors.Join(runErr, r.shim.Stop(ctx))
	if err != nil {
		return nil, err
	}
	return r.outcome(), nil
}

// binaries finds the shim and the runtime before anything is made. The shim's default
// lies beside this program, where `make` and packages put it, else in PATH.
func binaries(o Options) (shim, runtime string, err error) {
	if runtime, err = absolute(o.Runtime); err != nil {
		return "", "", fmt.Errorf("no OCI runtime (install runc, or name one with --runtime): %w", err)
	}
	if o.Shim != "" {
		shim, err = absolute(o.Shim)
		return shim, runtime, err
	}
	shim, err = OwnShim()
	return shim, runtime, err
}

// ownShim is the name of lark's own shim.
const ownShim = "containerd-shim-lark-v2"

// OwnShim finds lark's own shim: beside this program, where `make` and packages put
// it, else in PATH.
func OwnShim() (string, error) {
	if self, err := os.Executable(); err == nil {
		if path, err := absolute(filepath.Join(filepath.Dir(self), ownShim)); err == nil {
			return path, nil
		}
	}
	path, err := absolute(ownShim)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside this program nor in PATH (name a shim with --shim): %w", ownShim, err)
	}
	return path, nil
}

// absolute resolves a program as a shell would: the shim works in another directory.
func absolute(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// errNoRootfs tells how to come by a root filesystem.
var errNoRootfs = errors.New(`there is nothing to run: give a root filesystem with --rootfs DIR or an OCI bundle with --bundle DIR,
or install a static busybox (apt-get install busybox-static), from which lark makes one.
A root filesystem is any directory with a system in it, for example:
  mkdir rootfs && docker export $(docker create debian) | tar -C rootfs -x`)

// specification says what is to be run.
func specification(ctx context.Context, o Options, home *shimclient.Home, id string) (*specs.Spec, error) {
	so := spec.Options{
		Rootfs: o.Rootfs, ReadOnly: o.ReadOnly, Args: o.Args, Env: o.Env, Dir: o.Dir,
		Terminal: o.Terminal, HostPID: o.HostPID, Cgroup: "/" + id,
	}
	if o.Bundle != "" {
		return spec.FromBundle(o.Bundle, so)
	}
	if len(so.Args) == 0 {
		so.Args = defaultArgs(o)
	}
	if len(so.Args) == 0 {
		return nil, errors.New("no command: give one after --, for example: lark run -- echo hello")
	}
	if so.Rootfs == "" {
		so.Rootfs = filepath.Join(home.Dir, "rootfs")
		err := spec.Busybox(ctx, so.Rootfs)
		if errors.Is(err, spec.ErrNoBusybox) {
			return nil, errNoRootfs
		}
		return spec.Default(so), err
	}
	abs, err := filepath.Abs(so.Rootfs)
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(abs); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("--rootfs %s is not a directory: %w", o.Rootfs, errors.Join(err, os.ErrNotExist))
	}
	so.Rootfs = abs
	return spec.Default(so), nil
}

// defaultArgs: a shell for a terminal, something that stays for execs.
func defaultArgs(o Options) []string {
	switch {
	case o.Terminal:
		return []string{"sh"}
	case o.Execs > 0:
		return []string{"sleep", "2147483647"}
	}
	return nil
}
