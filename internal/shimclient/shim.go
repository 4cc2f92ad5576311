package shimclient

// Shim: from the `start` helper to the end of the last process.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Config says which shim to start, and how.
type Config struct {
	Binary  string // absolute path of the shim
	Runtime string // OCI runtime; absolute path
	// Further are more of the runtime's options; its binary and root are set from above
	// where they are empty. May be nil.
	Further   *options.Options
	Namespace string
	Home      *Home
	Sink      *Sink
	Era       Era
	Debug     bool
	Log       io.Writer // where the shim's log is shown; nil for nowhere
}

// Options are the runtime's options for a container of this Config: the runtime's
// binary, and its state below the Home.
func (c Config) Options() (*anypb.Any, error) {
	opts := &options.Options{}
	if c.Further != nil {
		proto.Merge(opts, c.Further)
	}
	if opts.BinaryName == "" {
		opts.BinaryName = c.Runtime
	}
	if opts.Root == "" {
		opts.Root = c.Home.RuntimeRoot()
	}
	value, err := proto.Marshal(opts)
	if err != nil {
		return nil, fmt.Errorf("pack the runtime's options: %w", err)
	}
	// The bare name, without protobuf's host before it, as containerd writes it.
	return &anypb.Any{TypeUrl: string(opts.ProtoReflect().Descriptor().FullName()), Value: value}, nil
}

// Shim is a running shim. Its Task API may be used from any goroutine; Stop is called
// once, at the end.
type Shim struct {
	*Task
	// Answer is what the `start` helper said.
	Answer Answer
	// Pid is that of the serving process.
	Pid int
	// Era is the one in which the shim was started: never EraAny.
	Era Era
	// Took says how long the start took.
	Took StartTimes

	cfg    Config
	gone   chan struct{} // closed when the connection has ended
	server *held

	mu      sync.Mutex
	bundles []*Bundle
}

// StartTimes are the costs of a start.
type StartTimes struct {
	Helper    time.Duration // from the fork of the `start` helper to its end
	HelperCPU time.Duration // the helper's own user and system time
	Ready     time.Duration // from the fork of the helper to the first call's answer
}

// Start starts a shim for the bundle and connects to it. When it returns an error,
// nothing that it began is left and the bundle is removed.
func Start(ctx context.Context, cfg Config, b *Bundle) (_ *Shim, err error) {
	s := &Shim{cfg: cfg, gone: make(chan struct{}), bundles: []*Bundle{b}}
	b.log.show(cfg.Log)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.clear(context.WithoutCancel(ctx)))
		}
	}()
	opts, err := cfg.Options()
	if err != nil {
		return nil, err
	}
	killed := func() error { return killBelow(ctx, b.Path) }
	start, err := cfg.start(ctx, b, opts, killed)
	if err != nil {
		return nil, err
	}
	s.Answer, s.Era, s.Took = start.answer, start.era, start.took
	if s.Task, err = s.connect(ctx); err != nil {
		return nil, err
	}
	if err = s.greet(ctx, b); err != nil {
		return nil, err
	}
	s.Took.Ready = time.Since(start.begin)
	return s, nil
}

// connect opens the connection for the task API.
func (s *Shim) connect(ctx context.Context) (*Task, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "unix", s.Answer.Socket())
	if err != nil {
		return nil, fmt.Errorf("connect to the shim: %w", err)
	}
	client := ttrpc.NewClient(conn, ttrpc.WithOnClose(func() { close(s.gone) }))
	return &Task{client: client, service: s.Answer.Service(), namespace: s.cfg.Namespace}, nil
}

// greet makes the first call, which learns the server's pid, and takes hold of it. The
// connection cannot outlive the server: when a second call is answered after the pid
// was opened, the pid is the server's.
func (s *Shim) greet(ctx context.Context, b *Bundle) error {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	for range 2 {
		r, err := s.Connect(ctx, &taskapi.ConnectRequest{ID: b.ID})
		if err != nil {
			return fmt.Errorf("first call to the shim: %w: %s", err, lastLine(b.Log()))
		}
		if s.server != nil {
			return nil
		}
		s.Pid = int(r.ShimPid)
		if s.Pid <= 1 {
			return fmt.Errorf("shim says that its pid is %d: %w", s.Pid, errdefs.ErrInvalidArgument)
		}
		if s.server, err = hold(s.Pid); err != nil {
			return err
		}
	}
	return nil
}

// Gone is closed when the shim's connection has ended, which it only does when the shim
// has ended.
func (s *Shim) Gone() <-chan struct{} { return s.gone }

// Adopt enters a further bundle whose container is about to be created in this shim, so
// that Stop clears it too.
func (s *Shim) Adopt(b *Bundle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bundles = append(s.bundles, b)
}

// Stop ends the shim and removes whatever it, its containers and its runtime left. It
// asks first, and waits; when ctx is done it kills at once. What remains is removed in
// either case, each step within its own bound.
func (s *Shim) Stop(ctx context.Context) error {
	s.ask(ctx)
	return s.clear(context.WithoutCancel(ctx))
}

// Leave asks the shim to end and waits until it has; the daemon's part of an orderly end.
// Stop is still to be called. A shim that stays is no error here: Stop ends it.
func (s *Shim) Leave(ctx context.Context) { s.ask(ctx) }

// Disconnect closes the connection without a word, as the death of a daemon does. Stop
// is still to be called.
func (s *Shim) Disconnect() { s.client.Close() }

// RunDelete runs the shim's `delete` helper for a bundle, as a daemon does after every
// shim's end, and returns its answer. Stop runs it by itself.
func (s *Shim) RunDelete(ctx context.Context, b *Bundle) (*taskapi.DeleteResponse, error) {
	return s.cfg.runDelete(ctx, b)
}

// With is the same Config for another shim's binary.
func (c Config) With(binary string) Config {
	c.Binary = binary
	return c
}

// RunDelete runs the `delete` helper of this Config's shim for a bundle, whichever shim
// has served it.
func (c Config) RunDelete(ctx context.Context, b *Bundle) (*taskapi.DeleteResponse, error) {
	return c.runDelete(ctx, b)
}

// ask makes the Shutdown call and waits for the shim to leave. Its failure needs no
// word: clear kills what is still there.
func (s *Shim) ask(ctx context.Context) {
	callCtx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	s.mu.Lock()
	id := s.bundles[0].ID
	s.mu.Unlock()
	if err := s.Shutdown(callCtx, &taskapi.ShutdownRequest{ID: id}); err != nil && !errdefs.IsUnavailable(err) {
		return
	}
	s.client.Close() // as a daemon does: nobody has more to ask
	waitCtx, cancel := context.WithTimeout(ctx, exitTimeout)
	defer cancel()
	s.server.ended(waitCtx)
}

// clear kills what lives and removes what is left, in the order of who could make more.
func (s *Shim) clear(ctx context.Context) error {
	var errs []error
	if s.Task != nil {
		s.client.Close()
	}
	if s.server != nil {
		errs = append(errs, s.server.kill())
		s.server.close()
	}
	s.mu.Lock()
	bundles := s.bundles
	s.mu.Unlock()
	for _, b := range bundles {
		errs = append(errs, s.clearBundle(ctx, b))
	}
	if s.Answer.Socket() != "" {
		if err := os.Remove(s.Answer.Socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// clearBundle ends one container and removes its bundle.
func (s *Shim) clearBundle(ctx context.Context, b *Bundle) error {
	var errs []error
	errs = append(errs, killBelow(ctx, b.Path))
	// Older shims fail to delete a container that was never created; the runtime's pid
	// file tells whether it was.
	_, never := os.Stat(filepath.Join(b.Path, "init.pid"))
	if _, err := s.cfg.runDelete(ctx, b); err != nil && never == nil {
		errs = append(errs, err)
	}
	errs = append(errs, s.deleteContainer(ctx, b))
	errs = append(errs, killBelow(ctx, b.Path))
	errs = append(errs, clearCgroup(ctx, b.Cgroup))
	errs = append(errs, b.Remove())
	return errors.Join(errs...)
}

// deleteContainer has the runtime forget the container if the shim's `delete` did not:
// a shim that died before it wrote its files makes `delete` look in the wrong place.
func (s *Shim) deleteContainer(ctx context.Context, b *Bundle) error {
	return DeleteContainer(ctx, s.cfg.Runtime, filepath.Join(s.cfg.Home.RuntimeRoot(), s.cfg.Namespace), b.ID)
}

// DeleteContainer has an OCI runtime kill and forget a container, if there is any state
// of it below root.
func DeleteContainer(ctx context.Context, runtime, root, id string) error {
	if _, err := os.Stat(filepath.Join(root, id)); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, runtime, "--root", root, "delete", "--force", id).CombinedOutput()
	if err != nil {
		return fmt.Errorf("delete container %s: %w: %s", id, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Options are the runtime's options for a further container of this shim.
func (s *Shim) Options() (*anypb.Any, error) { return s.cfg.Options() }
