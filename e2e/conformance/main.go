// Command conformance holds a containerd shim against containerd's own.
//
//	conformance [-shim FILE] [-logs DIR] [-run REGEXP] [client|docker|cri|smoke]...
//
// client runs containerd's integration/client suite, once with containerd's shim and twice with the subject: as
// io.containerd.lark.v2 and in the place of io.containerd.runc.v2. A test that containerd's shim passes and the subject does
// not is a failure. docker, cri and smoke run the tests of those directories of this module. Without an argument all are run.
//
// Everything happens in sandboxes (package sandbox): no daemon of the machine is touched and nothing is left behind. It needs
// root, runc, busybox-static, lsof, and for docker Debian's docker.io; prepare.sh installs them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/larkshim/lark/e2e/suite/sandbox"
)

const (
	// goTestsLimit ends one of the other parts whatever happens in it; each takes a minute or two.
	goTestsLimit = 15 * time.Minute
	// interruptDelay is how long they have to clean up.
	interruptDelay = 30 * time.Second
)

// options are the command line.
type options struct {
	shim  string // the subject, absolute
	logs  string // where full output goes
	spare bool   // logs is a directory of ours, of no use when all went well
	run   string // regular expression of the tests to run; empty: all
	parts []string
}

// part is one of the things that can be asked for.
type part struct {
	name string
	run  func(context.Context, options) error
}

// parts in the order in which they are run.
var parts = []part{
	{"client", runClient},
	{"smoke", goTests("smoke", "./suite/smoke")},
	{"docker", goTests("docker", "./docker")},
	{"cri", goTests("cri", "./cri")},
}

func main() {
	sandbox.Init()
	if sandbox.Inside() {
		os.Exit(insideMain())
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o, err := parse()
	if err != nil {
		return err
	}
	var failed []error
	for _, part := range parts {
		if !slices.Contains(o.parts, part.name) {
			continue
		}
		if err := part.run(ctx, o); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", part.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(failed) == 0 && o.spare {
		return os.RemoveAll(o.logs)
	}
	return errors.Join(failed...)
}

func parse() (options, error) {
	var o options
	flag.StringVar(&o.shim, "shim", "bin/containerd-shim-lark-v2", "the shim to be tested")
	flag.StringVar(&o.logs, "logs", "", "directory for the full output of every run (default: a temporary one, kept only after a failure)")
	flag.StringVar(&o.run, "run", "", "run only the tests whose names match this regular expression")
	flag.Parse()
	o.parts = flag.Args()
	if len(o.parts) == 0 {
		for _, part := range parts {
			o.parts = append(o.parts, part.name)
		}
	}
	for _, asked := range o.parts {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == asked }) {
			return o, fmt.Errorf("no such part: %s", asked)
		}
	}
	var err error
	if o.shim, err = filepath.Abs(o.shim); err != nil {
		return o, err
	}
	if info, err := os.Stat(o.shim); err != nil {
		return o, fmt.Errorf("the shim to be tested: %w (build it, or name it with -shim)", err)
	} else if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return o, fmt.Errorf("the shim to be tested: %s is no program", o.shim)
	}
	if o.logs == "" {
		o.spare = true
		o.logs, err = os.MkdirTemp("", "lark-conformance-")
	} else if o.logs, err = filepath.Abs(o.logs); err == nil {
		err = os.MkdirAll(o.logs, 0o755)
	}
	return o, err
}
