package stdio

// logger.go runs a logging binary: descriptor 3 is the container's stdout, 4 its
// stderr, 5 is closed (or written to) when it is ready. The container writes
// into the logger's pipes directly; lark copies nothing.
//
// A binary:// URI makes the shim execute a program of the client's choice as
// itself. It is accepted from the stdio fields of a request and from nowhere
// else, by absolute path, without a shell, and is logged.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
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
	status  uint32 // of its exit, once exited is closed
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
	start, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	process, err := owner.StartContext(start, cmd)
	w.Close()
	if err != nil {
		return nil, loggerStartError(t.path, err)
	}
	if start.Err() != nil { // it was killed before it ran, or in its first moment
		_ = process.KillTree(nil)
		return nil, fmt.Errorf("logger %q was not executed: %w", t.path, context.Cause(start))
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
	l.status = exit.Status
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

// confirm refuses a logger that has died as soon as it was ready: a death closes
// the ready pipe too. Our copies of the pipes' reading ends must be closed; out is
// the writing end of its stdout. FailedPrecondition, DeadlineExceeded.
func (l *logger) confirm(ctx context.Context, k kernel, out *os.File) error {
	if !l.exiting() {
		return nil
	}
	limit := time.NewTimer(readyWait)
	defer limit.Stop()
	select {
	case <-l.exited:
	case <-ctx.Done():
		return fmt.Errorf("logger %q: %w", l.path, context.Cause(ctx))
	case <-limit.C:
		return nil // its first thread has ended and others go on
	}
	// A logger that goes into the background ends with 0 and leaves a reader.
	if l.status == 0 && hasReader(k, out) {
		return nil
	}
	return fmt.Errorf("logger %q has died before the container was made, with status %d: %w", l.path, l.status, errdefs.ErrFailedPrecondition)
}

// hasReader reports whether a reading end of a pipe is open somewhere.
func hasReader(k kernel, pipe *os.File) bool {
	closed := true
	if raw, err := pipe.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, closed, err = k.poll(int(fd)) })
		closed = closed || err != nil
	}
	return !closed
}

// exiting reports whether the logger has exited or is on its way: an exit closes
// the files before the process can be waited for, and marks the process before it
// closes the files (do_exit in kernel/exit.c).
func (l *logger) exiting() bool {
	const flagsField, pfExiting = 6, 0x4 // from state on, see proc_pid_stat(5)
	select {
	case <-l.exited:
		return true
	default:
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.process.Pid()))
	if err != nil { // reaped before the open or before the read, or no /proc
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= flagsField {
		return false
	}
	flags, err := strconv.ParseUint(string(fields[flagsField]), 10, 32)
	return err == nil && flags&pfExiting != 0
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
	for _, cannot := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.ENOEXEC, syscall.ENOTDIR} {
		if errors.Is(err, cannot) {
			class = errdefs.ErrFailedPrecondition
		}
	}
	return errno.Classed(fmt.Sprintf("logger %q", path), class, err)
}
