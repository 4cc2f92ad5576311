package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/run"
)

const runLong = `Run a container under a real shim, through the shim's real protocol, without a daemon.

lark starts the shim as containerd would, receives its events, shows them as they come
on standard error, and checks them: every process is told to have started before it is
told to have ended, ends once, and the container's first process ends last. The last
line says whether that held. The container's own output goes to standard output and
standard error.

The root filesystem is --rootfs DIR, or that of an OCI bundle (--bundle DIR, which is
read and not written), or one made of the machine's static busybox.

Ctrl-C kills the container; a second one does not wait for anything any more. Any other
signal that can be caught does the same, and a reader that goes away (as head does) kills
the container too. In no case is a process, mount, cgroup or file left behind.

Exit status:
  0     the container ended with 0, or its execs were done and lark ended it
  N     the container's own, or 128 and the number of the signal that ended it
  1     also: the order of the events was broken, or an exec could not be run
  125   lark could not run the container
  130   Ctrl-C was pressed twice`

const runExample = `  lark run -- echo hello
  lark run -t                                  a shell, in a system made of busybox
  lark run --execs 100                         100 processes at once beside a sleeping one
  lark run --rootfs /srv/debian -t -- bash
  lark run --shim /usr/bin/containerd-shim-runc-v2 --execs 30 -- sleep 60`

func runCommand() *cobra.Command {
	o := run.Options{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	var execCommand string
	cmd := &cobra.Command{
		Use:     "run [flags] [--] [COMMAND [ARG...]]",
		Short:   "Run a container under a shim and check the order of its events",
		Long:    runLong,
		Example: runExample,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Args = args
			o.ExecArgs = []string{"/bin/sh", "-c", execCommand}
			if execCommand == "true" {
				o.ExecArgs = []string{"true"}
			}
			return runContainer(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the command is the command's
	f.StringVar(&o.Rootfs, "rootfs", "", "`directory` of the root filesystem (default: one made of busybox)")
	f.StringVar(&o.Bundle, "bundle", "", "`directory` of an OCI bundle to run")
	f.BoolVar(&o.ReadOnly, "read-only", false, "make the root filesystem read-only")
	f.BoolVarP(&o.Terminal, "tty", "t", false, "give the container a terminal and connect ours to it")
	f.BoolVarP(&o.Interactive, "interactive", "i", false, "connect standard input")
	f.IntVar(&o.Execs, "execs", 0, "run `N` processes beside the container's first, then end it")
	f.IntVar(&o.Parallel, "parallel", 0, "at most `N` execs at once (default: all)")
	f.StringVar(&execCommand, "exec-command", "true", "what an exec runs; more than `true` goes through the container's sh")
	f.StringArrayVarP(&o.Env, "env", "e", nil, "set `KEY=VALUE` in the environment; may be repeated")
	f.StringVarP(&o.Dir, "workdir", "w", "", "working `directory` in the container")
	f.BoolVar(&o.HostPID, "host-pid", false, "join the host's pid namespace")
	f.StringVar(&o.Runtime, "runtime", "runc", "OCI runtime, name or `path`")
	f.StringVar(&o.Shim, "shim", "", "`path` of the shim (default: lark's own, beside this program or in PATH)")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "show no events, only the last line")
	f.BoolVar(&o.JSON, "json", false, "show events and summary as lines of JSON")
	f.BoolVar(&o.Debug, "debug", false, "show the shim's log")
	cmd.MarkFlagsMutuallyExclusive("rootfs", "bundle")
	return cmd
}

// runContainer turns signals into the two ways to end early, and the outcome into an
// exit status.
func runContainer(ctx context.Context, o run.Options) error {
	if os.Geteuid() != 0 {
		return errors.New("lark run needs to be root: shims and runtimes make namespaces, mounts and cgroups")
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, abort := context.WithCancel(ctx)
	defer abort()
	kill := make(chan struct{})
	signals := make(chan os.Signal, 2)
	notifyEnding(signals)
	defer signal.Stop(signals)
	go func() {
		<-signals
		close(kill)
		<-signals
		abort()
	}()
	begin := time.Now()
	out, err := run.Run(ctx, run.Interrupt{Kill: kill}, o)
	if err != nil {
		return err
	}
	if err := out.Summary(o.Stderr, o, time.Since(begin)); err != nil {
		return err
	}
	return status(out)
}

// notifyEnding has c told of every signal that would end this program before it has
// cleared away, but for those that it was started to ignore, as nohup(1) does. SIGPIPE
// only loses that meaning: the write that it comes with fails, too.
func notifyEnding(c chan<- os.Signal) {
	for _, s := range []os.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGTERM,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGVTALRM, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGPOLL,
	} {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	// Not signal.Ignore, which the shim and the container would inherit.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
}

func status(out *run.Outcome) error {
	switch {
	case len(out.Violations) > 0 || out.FailedExecs > 0:
		return exitCode(exitBroken)
	case out.Ended || out.Status == 0:
		return nil
	}
	return exitCode(out.Status)
}
