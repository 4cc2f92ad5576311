package bootstrap

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/outbox"
)

// App is a shim without its bootstrap: what the binary's main knows.
type App struct {
	// Version and Revision are shown by -v and -info.
	Version, Revision string
	// NewService makes the task service of the serving process. It is called once,
	// before the first connection is accepted.
	NewService func(context.Context, Serving) (Service, error)
}

// Serving is what the task service needs of its process.
type Serving struct {
	Namespace bundle.Namespace
	// ID is the container for which the shim was started, the first of its group.
	ID bundle.ContainerID
	// Bundle is that container's bundle, the working directory of the process.
	Bundle string
	// Outbox takes the events. It is drained and closed after Service.Close.
	Outbox *outbox.Outbox
	// Log writes to containerd's log pipe. It never blocks.
	Log *slog.Logger
	// Alone is how long the shim has to be without a connection before it looks whether
	// anything can still be asked of it; it never does if that is zero.
	Alone time.Duration
	// Shutdown begins the end of the process and returns at once. It may be called
	// from a handler, whose answer is still sent, and any number of times.
	Shutdown func()
}

// Connections is told of connections, each by a number that is not zero and that no
// other has. Calls have it in their context, see taskapi.Conn.
type Connections interface {
	// Opened is called before the first call of the connection.
	Opened(conn uint64)
	// Closed is called when it has ended; its calls may still be running.
	Closed(conn uint64)
}

// Service is a task service.
type Service struct {
	// Task handles the calls, of both versions of the API. Its errors may be of
	// containerd/errdefs; they are translated.
	Task task.TTRPCTaskService
	// Connections is told of every connection. May be nil.
	Connections Connections
	// Close is called when no call is running any more, or the wait for that was
	// given up; before the last events are delivered. May be nil.
	Close func() error
}

// flags are the command line. containerd gives them in this form, a single dash
// and the value after a space.
type flags struct {
	namespace, id, address, bundle string
	debug, version, info           bool
	logLevel                       int
	action                         string
}

func parseFlags(args []string, out io.Writer) (*flags, error) {
	f := &flags{}
	var ignored string
	set := flag.NewFlagSet(filepath.Base(args[0]), flag.ContinueOnError)
	set.SetOutput(out)
	set.StringVar(&f.namespace, "namespace", "", "containerd `namespace` of the container")
	set.StringVar(&f.id, "id", "", "`id` of the container")
	set.StringVar(&f.address, "address", "", "`path` of containerd's gRPC socket")
	set.StringVar(&f.bundle, "bundle", "", "`path` of the bundle, if it is not the working directory")
	set.StringVar(&ignored, "publish-binary", "", "ignored: events go to TTRPC_ADDRESS")
	set.BoolVar(&f.debug, "debug", false, "log more")
	set.IntVar(&f.logLevel, "log-level", 0, "least `level` that is logged, as in log/slog")
	set.BoolVar(&f.version, "v", false, "print the version")
	set.BoolVar(&f.version, "version", false, "print the version")
	set.BoolVar(&f.info, "info", false, "read runtime options, print what the runtime can do (both protobuf)")
	if err := set.Parse(args[1:]); err != nil {
		return nil, err
	}
	if set.NArg() > 1 {
		return nil, fmt.Errorf("more than one command: %q", set.Args())
	}
	f.action = set.Arg(0)
	return f, nil
}

// Main does what the command line says and returns the exit status. On success of
// start, standard output has the answer and nothing else is printed anywhere:
// containerd reads both outputs as one.
func Main(app App) int {
	f, err := parseFlags(os.Args, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := app.run(f); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", filepath.Base(os.Args[0]), err)
		return 1
	}
	return 0
}

func (a App) run(f *flags) error {
	switch {
	case f.version:
		fmt.Printf("%s:\n  Version:  %s\n  Revision: %s\n  Go version: %s\n\n",
			filepath.Base(os.Args[0]), a.Version, a.Revision, runtime.Version())
		return nil
	case f.info:
		return a.info(os.Stdin, os.Stdout)
	}
	// A name is needed for all that follows, and never guessed.
	ns, err := bundle.ParseNamespace(f.namespace)
	if err != nil {
		return err
	}
	id, err := bundle.ParseContainerID(f.id)
	if err != nil {
		return err
	}
	switch f.action {
	case "start":
		return starting(ns, id, f, os.Stdin, os.Stdout)
	case "delete":
		return deleting(ns, id, f, os.Stdout)
	case "":
		return a.serve(ns, id, f)
	}
	return fmt.Errorf("no command is called %q", f.action)
}
