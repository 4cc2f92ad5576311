package children

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Process is one that this program has forked itself. Only [Owner.Start] makes one. Its methods may be called from any
// goroutine.
type Process struct{ held *held }

// Start forks what cmd describes, in a process group of its own unless it is to have a session of its own. It heeds
// cmd's Path, Args, Env, Dir, Stdin, Stdout, Stderr, ExtraFiles, SysProcAttr (but for PidFD) and Err, as os/exec does,
// and nothing else of it: no context, and of Env nothing is taken away that stands there twice, nor PWD added. The
// streams must be nil, which means /dev/null, or an *os.File, which stays the caller's: what a process writes is for its
// reader to copy. No method of cmd may be called afterwards.
//
// Errors are those of exec.Cmd.Start (so errors.Is(err, fs.ErrNotExist) works), with the class ResourceExhausted where
// the machine is full and FailedPrecondition where the program or the directory cannot be used; InvalidArgument for a stream that is no file; or ErrClosed.
//
// Start returns when the program runs. What that takes is up to the kernel (an execve may wait for a scanner, or for a
// file system); the other goroutines go on meanwhile. [Owner.StartContext] bounds it.
//
// No thread waits for the process: it is waited for by pidfd, in the poller. os/exec itself is not used: its second
// pidfd, its second waitid and its sorting of the environment cost as much CPU as a quarter of the fork.
func (o *Owner) Start(cmd *exec.Cmd) (*Process, error) {
	return o.StartContext(context.Background(), cmd)
}

// StartContext is Start, but kills the process if ctx ends, or the Owner is closed, before the program runs. It is
// returned all the same, since it may have run in the last moment, and must be waited for. Once the program runs, ctx
// has no effect.
func (o *Owner) StartContext(ctx context.Context, cmd *exec.Cmd) (*Process, error) {
	if !o.enterStart() {
		return nil, ErrClosed
	}
	defer o.starts.Done()
	files, err := o.files(cmd)
	if err != nil {
		return nil, err
	}
	attr := syscall.ProcAttr{Dir: cmd.Dir, Env: cmd.Env, Files: files}
	if attr.Env == nil {
		attr.Env = os.Environ()
	}
	// What we fork lives in our own pid namespace, unless it is cloned into a new one.
	cloned := cmd.SysProcAttr != nil && cmd.SysProcAttr.Cloneflags&unix.CLONE_NEWPID != 0
	// From before the fork until the pid is in the table, it counts as a window: a zombie seen meanwhile may be ours.
	w := o.begin(o.own, cloned)
	defer w.Close()
	fd := -1
	attr.Sys = forkAttr(cmd.SysProcAttr, &fd)
	f := newFlight()
	stop := o.endWith(ctx, f)
	pid, err := o.sys.fork(cmd.Path, argv(cmd), &attr, f)
	stop()
	runtime.KeepAlive(cmd) // its files were numbers meanwhile
	if err != nil {
		return nil, classedStart(cmd.Path, &os.PathError{Op: "fork/exec", Path: cmd.Path, Err: err})
	}
	return o.adopt(pid, fd, w.ticks), nil
}

// endWith kills what is being forked if ctx ends, or the Owner is closed, before stop is called.
func (o *Owner) endWith(ctx context.Context, f *flight) (stop func()) {
	end := func() {
		for !f.kill(o.sys) {
			time.Sleep(cloneWait)
		}
	}
	stops := []func() bool{afterContext(o.life, o.log, "end of a start", end)}
	if ctx.Done() != nil {
		stops = append(stops, afterContext(ctx, o.log, "end of a start", end))
	}
	return func() {
		f.land()
		for _, stop := range stops {
			stop()
		}
	}
}

// enterStart enters a start, for which Close then waits; false if the Owner is closed.
func (o *Owner) enterStart() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.starts.Add(1)
	return true
}

// files lists the descriptors that the process is to have, from 0 on.
func (o *Owner) files(cmd *exec.Cmd) ([]uintptr, error) {
	if cmd.Err != nil { // exec.Command has not found it
		return nil, classedStart(cmd.Path, cmd.Err)
	}
	files := make([]uintptr, 0, 3+len(cmd.ExtraFiles))
	for _, stream := range [...]any{cmd.Stdin, cmd.Stdout, cmd.Stderr} {
		switch stream := stream.(type) {
		case nil:
			files = append(files, o.null.Fd())
		case *os.File:
			files = append(files, stream.Fd())
		default:
			return nil, fmt.Errorf("start %s: a stream is a %T and no file: %w", cmd.Path, stream, errdefs.ErrInvalidArgument)
		}
	}
	for _, extra := range cmd.ExtraFiles {
		files = append(files, extra.Fd())
	}
	return files, nil
}

// argv is the command line: never empty.
func argv(cmd *exec.Cmd) []string {
	if len(cmd.Args) == 0 {
		return []string{cmd.Path}
	}
	return cmd.Args
}

// forkAttr is the caller's wish with ours. The kernel makes the pidfd together with the process (CLONE_PIDFD), so that
// nothing can fail between the fork and the table.
func forkAttr(callers *syscall.SysProcAttr, fd *int) *syscall.SysProcAttr {
	var attr syscall.SysProcAttr
	if callers != nil {
		attr = *callers
	}
	attr.Setpgid = attr.Setpgid || !attr.Setsid
	attr.PidFD = fd
	return &attr
}

// classedStart keeps the error as it is and adds a class where we know one.
func classedStart(path string, err error) error {
	return fmt.Errorf("start %s: %w: %w", path, classOfPath(err), err)
}

// adopt enters a process in the table that was just forked.
func (o *Owner) adopt(pid, fd int, ticks uint64) *Process {
	// For the poller. Our waits have WNOHANG and would not block either way.
	_ = unix.SetNonblock(fd, true)
	h := newHeld(o, pid, fd)
	h.start, h.entry = ticks, o.sys.bootTicks()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.put(h)
	return &Process{h}
}

// Pid is the process's number. It is nobody else's until Wait has returned.
func (p *Process) Pid() int { return p.held.pid }

// Wait returns the exit of the process, once it is there. It may be called by many and after the exit; all are told the
// same. It fails with the cause of ctx, which ends this wait only; with ErrClosed; or with ErrLost.
func (p *Process) Wait(ctx context.Context) (Exit, error) { return p.held.wait(ctx) }

// Signal sends a signal to the process alone; os.ErrProcessDone once it has exited.
func (p *Process) Signal(sig unix.Signal) error { return p.held.signal(sig) }
