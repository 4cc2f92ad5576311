package children

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is one that this program has forked itself. Only [Owner.Start] makes one. Its methods may be called from any
// goroutine.
type Process struct {
	held *held
	cmd  *exec.Cmd
	// finished is closed when os/exec has copied what the process wrote, or has given up doing so.
	finished chan struct{}
}

// Start forks cmd, in a process group of its own unless it is to have a session of its own. Nobody else may call cmd's
// Start, Wait or Process.Wait; cmd.ProcessState is set when Wait returns. The caller's SysProcAttr is respected, but for
// PidFD. Errors are those of exec.Cmd.Start (so errors.Is(err, fs.ErrNotExist) works), with the class
// ResourceExhausted where the machine is full; or ErrClosed.
//
// No thread waits for the process: as os/exec does, it is waited for by pidfd, but in the poller.
func (o *Owner) Start(cmd *exec.Cmd) (*Process, error) {
	// What we fork lives in our own pid namespace, unless it is cloned into a new one.
	cloned := cmd.SysProcAttr != nil && cmd.SysProcAttr.Cloneflags&unix.CLONE_NEWPID != 0
	// From before the fork until the pid is in the table, it counts as a window: a zombie seen meanwhile may be ours.
	w := o.begin(o.own, cloned)
	defer w.Close()
	if w.isClosed() {
		return nil, ErrClosed
	}
	fd := -1
	callers := cmd.SysProcAttr
	cmd.SysProcAttr = forkAttr(callers, &fd)
	// A fork that was interrupted has forked nothing, and the caller may not try again with the same cmd.
	err := o.sys.start(cmd)
	cmd.SysProcAttr = callers
	if err != nil {
		return nil, classedStart(cmd.Path, err)
	}
	return o.adopt(cmd, fd, w.ticks), nil
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

// classedStart keeps the error of os/exec as it is and adds a class where we know one.
func classedStart(path string, err error) error {
	return fmt.Errorf("start %s: %w: %w", path, classOf(err), err)
}

// adopt enters a process in the table that was just forked.
func (o *Owner) adopt(cmd *exec.Cmd, fd int, ticks uint64) *Process {
	// Our waits must not block in waitid; os/exec, which has a duplicate, asks only when the answer is there.
	_ = unix.SetNonblock(fd, true)
	h := newHeld(o, cmd.Process.Pid, fd)
	h.start = ticks
	p := &Process{held: h, cmd: cmd, finished: make(chan struct{})}
	h.call = p
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known[h.pid] = h
	delete(o.zombies, h.pid)
	return p
}

// collect reaps through os/exec. The caller holds Owner.mu and knows that the process is a zombie.
func (p *Process) collect() {
	state, _ := p.cmd.Process.Wait()
	finish := func() {
		// It finds nothing more to wait for, and says so; but it ends the copying of output, within WaitDelay, and
		// closes what must be closed.
		_ = p.cmd.Wait()
		p.cmd.ProcessState = state
		close(p.finished)
	}
	if p.copies() {
		go finish()
	} else {
		finish()
	}
}

// copies says whether os/exec copies something of the process, for which it may have to wait. What a process is given as
// a file, or not at all, is not copied.
func (p *Process) copies() bool {
	for _, stream := range []any{p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr} {
		if _, file := stream.(*os.File); stream != nil && !file {
			return true
		}
	}
	return false
}

// Pid is the process's number. It is nobody else's until Wait has returned.
func (p *Process) Pid() int { return p.held.pid }

// Wait returns the exit of the process once it is there and its output was copied (which cmd.WaitDelay bounds). It may be
// called by many and after the exit; all are told the same. It fails with the cause of ctx, which ends this wait only;
// with ErrClosed; or with ErrLost.
func (p *Process) Wait(ctx context.Context) (Exit, error) {
	exit, err := p.held.wait(ctx)
	if err != nil {
		return Exit{}, err
	}
	select {
	case <-p.finished:
		return exit, nil
	default:
	}
	select {
	case <-p.finished:
		return exit, nil
	case <-ctx.Done():
		return Exit{}, context.Cause(ctx)
	}
}

// Signal sends a signal to the process alone; os.ErrProcessDone once it has exited.
func (p *Process) Signal(sig unix.Signal) error { return p.held.signal(sig) }
