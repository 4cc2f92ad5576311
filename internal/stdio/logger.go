package stdio

// logger.go runs a logging binary: descriptor 3 is the container's stdout, 4 its
// stderr, 5 is closed (or written to) when it is ready. The container writes
// into the logger's pipes directly; lark copies nothing.
//
// A binary:// URI makes the shim execute a program of the client's choice as
// itself. It is accepted from the stdio fields of a request and from nowhere
// else, by absolute path, without a shell, and is logged.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/errno"
	"github.com/larkshim/lark/internal/routine"
)

// logger is a running logging binary.
type logger struct {
	log     *slog.Logger
	process *children.Process
	path    string
	exited  chan struct{}
}

// startLogger starts a logger that reads from stdout and stderr, and waits until
// it is ready. On an error nothing of it is left.
func startLogger(ctx context.Context, k kernel, owner *children.Owner, log *slog.Logger, p plan, stdout, stderr *os.File) (*logger, error) {
	t := p.stdout
	r, w, err := ourPipe(k, "ready")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := &exec.Cmd{
		Path: t.path,
		Args: append([]string{t.path}, t.args...),
		// Nothing of the shim's environment is a logger's business.
		Env:        []string{"CONTAINER_ID=" + p.id, "CONTAINER_NAMESPACE=" + p.namespace},
		ExtraFiles: []*os.File{stdout, stderr, w},
		// No Pdeathsig: a logger outlives a shim that is killed, as its container does.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	process, err := owner.Start(cmd)
	w.Close()
	if err != nil {
		return nil, loggerStartError(t.path, err)
	}
	log.Info("logger started", "path", t.path, "pid", process.Pid())
	l := &logger{log: log, process: process, path: t.path, exited: make(chan struct{})}
	routine.Keep(log, "wait for a logger", l.reap, routine.DebtFunc(func() { close(l.exited) }))
	if err := l.awaitReady(ctx, r, t.kind == kindLoggerV2); err != nil {
		_ = process.Signal(unix.SIGKILL)
		return nil, err
	}
	return l, nil
}

// reap waits for the logger, whenever it ends.
func (l *logger) reap() {
	exit, err := l.process.Wait(context.Background())
	switch {
	case err != nil:
		l.log.Error("waiting for a logger", "path", l.path, "error", err)
	case exit.Status != 0 && exit.Status != 128+uint32(unix.SIGTERM):
		l.log.Warn("a logger failed", "path", l.path, "status", exit.Status)
	}
}

// awaitReady waits for one byte, or, unless strict, for the end of the pipe:
// loggers of the first kind may say that they are ready by closing it.
func (l *logger) awaitReady(ctx context.Context, r *os.File, strict bool) error {
	_ = r.SetReadDeadline(time.Now().Add(readyWait))
	defer routine.AfterContext(ctx, l.log, "end of a wait", func() { _ = r.SetReadDeadline(time.Now()) })()
	var b [1]byte
	_, err := r.Read(b[:])
	switch {
	case err == nil, err == io.EOF && !strict:
		return nil
	case err == io.EOF:
		return fmt.Errorf("logger %q ended or closed its ready pipe without saying that it is ready: %w", l.path, errdefs.ErrFailedPrecondition)
	case ctx.Err() != nil:
		return fmt.Errorf("logger %q: %w", l.path, context.Cause(ctx))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("logger %q was not ready within %v: %w", l.path, readyWait, context.DeadlineExceeded)
	}
	return systemError("a logger's ready pipe", err)
}

// stop lets the logger end, asks it to, and makes it end. Its pipes must have been
// closed by us before, so that it can see the end of the output.
func (l *logger) stop() error {
	if l.ends(loggerEnd) {
		return nil
	}
	_ = l.process.Signal(unix.SIGTERM) // an error means that it has exited
	if l.ends(loggerTerm) {
		return nil
	}
	if err := l.process.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return systemError("killing a logger", err)
	}
	l.log.Warn("a logger did not end and was killed", "path", l.path, "after", loggerTerm)
	return nil
}

// ends reports whether the logger ends within the time.
func (l *logger) ends(within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-l.exited:
		return true
	case <-timer.C:
		return false
	}
}

// loggerStartError says which binary it was, and gives the class a client expects.
func loggerStartError(path string, err error) error {
	class := error(errdefs.ErrInternal)
	switch {
	case errno.Exhausted(err):
		class = errdefs.ErrResourceExhausted
	case errors.Is(err, fs.ErrNotExist):
		class = errdefs.ErrNotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC):
		class = errdefs.ErrFailedPrecondition
	}
	return fmt.Errorf("logger %q: %w: %s", path, class, err)
}
