package children

// How one process is waited for: by pidfd, in the Go runtime's poller, without a thread or a goroutine of its own.

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Exit is how a process ended.
type Exit struct {
	// Status is the exit code, or 128 plus the number of the signal that killed it.
	Status uint32
	// At is when this program saw the exit.
	At time.Time
}

// held is a process that is pinned by a pidfd and known to its Owner.
type held struct {
	owner *Owner
	pid   int
	start uint64 // ticks, as in /proc/PID/stat; see is
	entry uint64 // ticks when it was entered in the table, at the latest
	ns    uint64 // inode of its pid namespace, 0 for what this program forked

	// turn holds one token. Who has it watches the pidfd for all who wait; so there is never a second watcher, and no
	// goroutine whose only purpose is to watch.
	turn chan struct{}
	// done is closed when exit and err are set, for good.
	done chan struct{}
	exit Exit
	err  error

	mu   sync.Mutex // guards fd and file, and that fd is open while it is used
	fd   int        // -1 once given back
	file *os.File   // fd, in the poller; made by the first wait that finds the process alive
}

func newHeld(o *Owner, pid, fd int) *held {
	h := &held{owner: o, pid: pid, fd: fd, turn: make(chan struct{}, 1), done: make(chan struct{})}
	h.turn <- struct{}{}
	return h
}

// is says whether h is the process with h's pid that began at start. A claimed
// process began at h.start. One that this program forked began between h.start,
// before the fork, and h.entry, after it; as it was not reaped before h.entry, no
// other process with its pid can have begun in between.
func (h *held) is(start uint64) bool { return h.start <= start && start <= h.entry }

// wait returns the exit, once there is one, to any number of callers. ctx ends this wait only.
func (h *held) wait(ctx context.Context) (Exit, error) {
	for {
		select {
		case <-h.done: // told even to those whose ctx has ended
			return h.exit, h.err
		default:
		}
		select {
		case <-h.done:
		case <-ctx.Done():
			return Exit{}, context.Cause(ctx)
		case <-h.turn:
			err := h.watch(ctx, h.reap)
			h.turn <- struct{}{}
			if err != nil {
				return Exit{}, err
			}
		}
	}
}

// waitDead returns once the process is dead, and leaves it to be reaped.
func (h *held) waitDead(ctx context.Context) error {
	select {
	case <-h.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-h.turn:
		defer func() { h.turn <- struct{}{} }()
		return h.watch(ctx, h.dead)
	}
}

// dead reports whether the process is dead, or lost, which a wait then finds.
func (h *held) dead() (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.done:
		return true, nil
	default:
	}
	if h.fd < 0 {
		return false, ErrClosed
	}
	dead, err := h.owner.peek(unix.P_PIDFD, h.fd)
	if errors.Is(err, unix.ECHILD) {
		return true, nil
	}
	return dead, err
}

// watch waits until look (reap, or dead) reports the end of the process, or ctx has
// ended, or the Owner was closed. The caller has the turn.
func (h *held) watch(ctx context.Context, look func() (bool, error)) error {
	for first := true; ; first = false {
		over, err := look()
		if !over && err == nil {
			over, err = h.poll(ctx, look)
		}
		if over { // even if ctx has ended in the same moment
			select {
			case <-h.done:
				h.release()
			default:
			}
			return nil
		}
		switch {
		case errors.Is(err, ErrClosed):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			continue
		}
		// Not in the manual pages, or no room in epoll: an exit must not be lost for that.
		if first {
			h.owner.log.Warn("waiting for a process: trying again", "pid", h.pid, "error", err)
		}
		if !h.owner.pause(ctx, retryPause) {
			return context.Cause(ctx)
		}
	}
}

// poll sleeps until look has reported the end of the process (over), or ctx has
// ended.
//
// The poller is edge-triggered, and SyscallConn.Read asks look once per edge, so that a pidfd that is ready although
// there is nothing to reap is asked no second time. That happens when a tracer holds the dead child. There is a fresh
// edge when the tracer has waited for it or has let go of it: the kernel then tells the real parent of the exit
// (do_notify_parent), which wakes those who poll the pidfd.
func (h *held) poll(ctx context.Context, look func() (bool, error)) (over bool, err error) {
	file, err := h.inPoller()
	if err != nil {
		return false, err
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return false, err
	}
	if ctx.Done() != nil {
		fired := make(chan struct{})
		stop := afterContext(ctx, h.owner.log, "end of a wait", func() {
			defer close(fired)
			_ = file.SetReadDeadline(time.Unix(1, 0))
		})
		defer func() {
			if !stop() {
				<-fired
				_ = file.SetReadDeadline(time.Time{}) // for the next who takes the turn
			}
		}()
	}
	var failed error
	err = conn.Read(func(uintptr) bool {
		over, failed = look()
		return over || failed != nil
	})
	switch {
	case over:
		return true, nil
	case failed != nil:
		return false, failed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil // ctx has ended
	case err != nil && h.released():
		return false, ErrClosed
	}
	return false, err
}

// released says whether the descriptor was given back.
func (h *held) released() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fd < 0
}

// inPoller gives the pidfd as a file in the poller.
func (h *held) inPoller() (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		return nil, ErrClosed
	}
	if h.file == nil {
		// It is non-blocking, so that NewFile puts it into the poller. If epoll refuses, waiting for it fails at once.
		h.file = os.NewFile(uintptr(h.fd), "pidfd")
	}
	return h.file, nil
}

// reap takes the exit if there is one. It reports whether the process is over and done closed; an error is one that the
// manual pages do not explain.
//
// It reaps under Owner.mu, so that the pid leaves the table before another process can have it.
func (h *held) reap() (over bool, err error) {
	o := h.owner
	o.mu.Lock()
	defer o.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.done:
		return true, nil
	default:
	}
	if h.fd < 0 {
		return false, ErrClosed
	}
	x, dead, err := o.reapChild(h.fd)
	switch {
	case errors.Is(err, unix.ECHILD):
		h.err = ErrLost
	case err != nil:
		return false, err
	case !dead:
		return false, nil
	}
	h.exit = Exit{Status: x.status, At: o.sys.now()}
	if h.err != nil {
		h.exit = Exit{}
	}
	o.forget(h)
	close(h.done)
	return true, nil
}

// reapChild takes the exit of the child behind a pidfd, if it is dead. It is the
// only place that reaps, and never by number: a number may be another process's
// since it was read. The caller holds mu.
func (o *Owner) reapChild(fd int) (x exited, dead bool, err error) {
	err = retry(func() (err error) {
		x, dead, err = o.sys.waitid(unix.P_PIDFD, fd, false)
		return err
	})
	if dead {
		o.reaped++
	}
	return x, dead, err
}

// release gives the descriptor back. Who polls it is woken and told that it is closed. Idempotent.
func (h *held) release() {
	h.mu.Lock()
	fd, file := h.fd, h.file
	h.fd, h.file = -1, nil
	h.mu.Unlock()
	// Not under the lock: Close waits for the watcher, who may be waiting for the lock.
	switch {
	case file != nil:
		_ = file.Close()
	case fd >= 0:
		_ = unix.Close(fd)
	}
}

// signal sends a signal to the process itself, never to one that has got its pid.
func (h *held) signal(sig unix.Signal) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		return os.ErrProcessDone
	}
	// The kernel accepts signals to a zombie; the caller wants to know that it is one.
	if dead, err := h.owner.peek(unix.P_PIDFD, h.fd); dead || errors.Is(err, unix.ECHILD) {
		return os.ErrProcessDone
	}
	err := retry(func() error { return h.owner.sys.pidfdSignal(h.fd, sig) })
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return classed("signal "+unix.SignalName(sig), err)
	}
	return nil
}

// pause waits for a while, unless ctx ends or the Owner is closed before.
func (o *Owner) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-o.stop:
		return true // what is tried again will say that it is closed
	case <-ctx.Done():
		return false
	}
}
