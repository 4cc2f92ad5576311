package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/outbox"
	"github.com/larkshim/lark/internal/routine"
)

// serve is the long-running process. It ends when the service asks for it or on
// SIGTERM or SIGINT, in order.
func (a App) serve(ns bundle.Namespace, id bundle.ContainerID, f *flags) error {
	unix.Umask(runtimeUmask)
	debug.SetGCPercent(gcPercent)
	nameThreads(filepath.Base(os.Args[0]))
	makeThreads(threads)
	if os.Getenv("GOMEMLIMIT") == "" { // else somebody knows better
		debug.SetMemoryLimit(memoryLimit)
	}
	dir, err := unix.Getwd()
	if err != nil {
		return os.NewSyscallError("getcwd", err)
	}
	pipe := openLog(logFile)
	listener, err := inherited(socketFD)
	if err != nil {
		// Also there: standard error is a person's, or after start leads nowhere.
		newLogger(pipe, slog.LevelError).Error("shim ends", "error", err)
		return err
	}
	if err := pipe.takeStderr(); err != nil {
		return err
	}
	level := slog.Level(f.logLevel)
	if f.debug {
		level = slog.LevelDebug
	}
	log := newLogger(pipe, level).With("pid", os.Getpid(), "namespace", ns.String(), "id", id.String())

	p := &process{log: log, ns: ns, listener: listener, stop: make(chan struct{})}
	signals := p.watchSignals(pipe)
	defer signals.stop()
	p.outbox = outbox.New(outbox.Config{
		Namespace: ns.String(),
		Transport: outbox.Dial(eventAddress(f.address)),
		Log:       log,
	})
	err = p.run(func(ctx context.Context) (Service, error) {
		return a.NewService(ctx, Serving{
			Namespace: ns, ID: id, Bundle: dir,
			Outbox: p.outbox, Log: log, Shutdown: p.shutdown, Alone: forsakenTime(os.Getenv(forsakenEnv)),
		})
	})
	if err != nil {
		log.Error("shim ends", "error", err) // standard error leads nowhere else
	}
	return err
}

// eventAddress is where events go. TTRPC_ADDRESS names it; without that it is where
// containerd always has it, beside the gRPC socket.
func eventAddress(grpcAddress string) string {
	if a := os.Getenv("TTRPC_ADDRESS"); a != "" {
		return a
	}
	return grpcAddress + ".ttrpc"
}

// inherited is the listening socket that start has left at the descriptor.
func inherited(fd uintptr) (*net.UnixListener, error) {
	f := os.NewFile(fd, "socket")
	if f == nil {
		return nil, errors.New("no socket was handed over: this command is for containerd, which begins with start")
	}
	defer f.Close()
	l, err := net.FileListener(f) // a duplicate, close-on-exec
	if err != nil {
		return nil, fmt.Errorf("no socket was handed over: this command is for containerd, which begins with start: %w", err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("descriptor %d is a %s listener", fd, l.Addr().Network())
	}
	return ul, nil
}

// process is the serving process.
type process struct {
	log      *slog.Logger
	ns       bundle.Namespace
	listener *net.UnixListener
	outbox   *outbox.Outbox

	stopOnce sync.Once
	stop     chan struct{} // closed when the end is to begin
}

func (p *process) shutdown() { p.stopOnce.Do(func() { close(p.stop) }) }

// run serves until the end is asked for, and then brings it about.
func (p *process) run(newService func(context.Context) (Service, error)) error {
	path := p.listener.Addr().String()
	socket, err := identityOf(path)
	if err != nil {
		// Unlinked already: nobody can reach us, and nothing of ours is to be removed.
		p.log.Warn("the socket is not where it was bound", "error", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	svc, err := newService(ctx)
	if err != nil {
		p.listener.Close()
		p.outbox.Close()
		return errors.Join(fmt.Errorf("task service: %w", err), removeSocket(path, socket))
	}
	failpoint.Point("serve: service made")
	srv, err := newServer(svc.Task, p.ns, p.log)
	if err != nil {
		return err
	}
	srv.connections = svc.Connections
	accepting := make(chan error, 1)
	routine.Keep(p.log, "accept", func() { accepting <- srv.serve(ctx, p.listener) })
	p.log.Debug("serving", "socket", path)
	select {
	case <-p.stop:
	case err = <-accepting:
		err = fmt.Errorf("accept: %w", err)
	}
	return errors.Join(err, p.end(srv, svc, cancel, path, socket))
}

// end is the orderly end: no new connection, the calls answered, the service closed,
// its last events delivered, the connections closed. The socket goes first, so that a
// start that comes now makes a new shim and does not join this one.
func (p *process) end(srv *server, svc Service, cancelCalls func(), path string, socket identity) error {
	var errs []error
	failpoint.Point("end: begun")
	errs = append(errs, removeSocket(path, socket))
	failpoint.Point("end: socket removed")
	p.listener.Close()
	if !await(srv.idle, answerGrace) {
		cancelCalls()
		await(srv.idle, answerGrace)
	}
	srv.closing.Store(true)
	answered := time.Now()
	if svc.Close != nil {
		errs = append(errs, bounded(svc.Close, closeTimeout))
	}
	errs = append(errs, p.drain())
	p.outbox.Close()
	failpoint.Point("end: drained")
	await(srv.left, time.Until(answered.Add(linger)))
	srv.close()
	return errors.Join(errs...)
}

// drain delivers the last events, init's exit and delete among them.
func (p *process) drain() error {
	err := p.outbox.DrainWhileMoving(drainPatience)
	if err != nil {
		p.log.Error("the last events are lost", "error", err)
	}
	return err
}

// await looks until done, or the time is over.
func await(done func() bool, timeout time.Duration) bool {
	for deadline := time.Now().Add(timeout); !done(); time.Sleep(answerPoll) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// bounded gives up on fn after the time, which then runs on.
func bounded(fn func() error, timeout time.Duration) error {
	done := make(chan error, 1)
	routine.Go(nil, "end of the task service", func() { done <- fn() }, routine.DebtFunc(func() { close(done) }))
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case err, ended := <-done:
		if !ended {
			return errors.New("the task service panicked at its end")
		}
		return err
	case <-timer.C:
		return fmt.Errorf("the task service did not end within %v", timeout)
	}
}

// watcher is the goroutine that answers signals.
type watcher struct {
	signals chan os.Signal
	done    chan struct{}
}

// harmless are signals that end a Go program unless somebody listens. They are
// listened to and not ignored, because an ignored signal stays ignored in every
// program that is executed, and so in containers.
var harmless = []os.Signal{
	syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTTOU, syscall.SIGTTIN, syscall.SIGTSTP,
	syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH,
}

// watchSignals makes SIGTERM and SIGINT end the process in order, SIGUSR1 dump all
// stacks, and the rest do nothing.
func (p *process) watchSignals(pipe *logPipe) *watcher {
	w := &watcher{signals: make(chan os.Signal, 16), done: make(chan struct{})}
	signal.Notify(w.signals, append([]os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1}, harmless...)...)
	routine.Keep(p.log, "signals", func() {
		for s := range w.signals {
			switch s {
			case syscall.SIGTERM, syscall.SIGINT:
				p.log.Info("ending", "signal", s.String())
				p.shutdown()
			case syscall.SIGUSR1:
				pipe.dumpStacks()
			}
		}
	}, routine.DebtFunc(func() { close(w.done) }))
	return w
}

func (w *watcher) stop() {
	signal.Stop(w.signals)
	close(w.signals)
	<-w.done
}

// bundlePath is the bundle that delete is about: containerd says it, or runs us in
// one; in that case, and only there, the id may name one beside it.
func bundlePath(f *flags, id bundle.ContainerID) (string, error) {
	if f.bundle != "" {
		return f.bundle, nil
	}
	dir, err := unix.Getwd()
	if err != nil {
		return "", os.NewSyscallError("getcwd", err)
	}
	return filepath.Join(filepath.Dir(dir), id.String()), nil
}
