package children

import (
	"golang.org/x/sys/unix"
)

// Window is the time in which a process that somebody else forks for us may turn up, be it dead or alive. As long as it
// is open, no dead child that may be its process is thrown away. Begin one before the runtime is called.
type Window struct {
	owner *Owner
	ns    *PIDNamespace
	any   bool   // may own a process of any pid namespace
	order uint64 // see Owner.order
	ticks uint64 // when it began, in the unit and the rounding of /proc/PID/stat

	closed bool // guarded by Owner.mu
}

// Begin opens a window for a process that will live in ns; nil stands for our own. It never fails: a window of a closed
// Owner is closed.
func (o *Owner) Begin(ns *PIDNamespace) *Window { return o.begin(ns, false) }

// begin opens a window; any says that it may own a process of every pid namespace.
func (o *Owner) begin(ns *PIDNamespace, any bool) *Window {
	if ns == nil {
		ns = o.own
	}
	w := &Window{owner: o, ns: ns, any: any, ticks: o.sys.bootTicks()}
	o.mu.Lock()
	defer o.mu.Unlock()
	w.order = o.order
	o.order++
	if o.closed {
		w.closed = true
		return w
	}
	o.windows[w] = struct{}{}
	return w
}

// Close ends the window. A process that was not claimed by now belongs to nobody. Idempotent.
func (w *Window) Close() {
	o := w.owner
	o.mu.Lock()
	defer o.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	delete(o.windows, w)
	if len(o.zombies)+len(o.doomed) > 0 {
		o.arm()
	}
}

// Claim proves that pid, which the runtime has just written down, is a process that this window's call has made, and
// makes it a Child; it may have died already. All of this must hold, or a ClaimError says what does not, and nobody is
// signalled:
//
//   - it is above 1 and not our own;
//   - it is there, and our child (so it cannot be given away while we look: only we can reap it);
//   - it began no earlier than the window;
//   - it lives in the pid namespace of the window's container, as far as that is known; and if it is not, then in none
//     that is known to be another container's. Without CAP_SYS_PTRACE only our own
//     pid namespace can be told from the others for another user's process;
//   - nobody has claimed it, and the window is open.
//
// A window may be claimed for more than once; one process only once.
func (w *Window) Claim(pid int) (*Child, error) {
	o := w.owner
	if pid <= 1 || pid == o.self {
		return nil, &ClaimError{pid, ErrBadPid}
	}
	if w.isClosed() {
		return nil, &ClaimError{pid, ErrWindowClosed}
	}
	fd, err := o.openChild(pid)
	if err != nil {
		return nil, &ClaimError{pid, err}
	}
	h := newHeld(o, pid, fd)
	if err = w.inspect(h); err == nil {
		err = w.take(h)
	}
	if err != nil {
		unix.Close(fd)
		return nil, &ClaimError{pid, err}
	}
	return &Child{h}, nil
}

// openChild opens a pidfd. That nobody has the pid, or a thread has it that leads no process, means that it is no child.
func (o *Owner) openChild(pid int) (int, error) {
	fd := -1
	err := retry(func() (err error) {
		fd, err = o.sys.pidfdOpen(pid)
		return err
	})
	switch err {
	case unix.ESRCH, unix.EINVAL, unix.ENOENT:
		return -1, ErrNotChild
	}
	return fd, err
}

// inspect reads what /proc says of the process. It proves nothing by itself, since the pid might be given away meanwhile:
// take does, which finds afterwards that the process behind the pidfd has not been reaped.
func (w *Window) inspect(h *held) error {
	sys := w.owner.sys
	st, err := statOf(sys, h.pid)
	if gone(err) {
		return ErrNotChild
	}
	if err != nil {
		return err
	}
	// Both are rounded down: one begun in the window's own tick passes, whether it began before or after it.
	h.start, h.entry = st.start, st.start
	if h.start < w.ticks {
		// A stranger is usually older than the window; that it is a stranger says more.
		if _, err := w.owner.peek(unix.P_PIDFD, h.fd); err == unix.ECHILD {
			return ErrNotChild
		}
		return ErrTooOld
	}
	h.ns, err = namespaceOf(sys, h.pid, w.owner.own.ino.Load())
	if gone(err) {
		return ErrNotChild
	}
	return err
}

// take enters the process in the table if it is ours and may be this window's.
func (w *Window) take(h *held) error {
	o := w.owner
	o.mu.Lock()
	defer o.mu.Unlock()
	if w.closed {
		return ErrWindowClosed
	}
	if _, err := o.peek(unix.P_PIDFD, h.fd); err == unix.ECHILD {
		return ErrNotChild
	} else if err != nil {
		return err
	}
	// From here on the pid is pinned: it is an unreaped child, and reaping takes mu.
	if o.holder(h.pid, h.start) != nil {
		return ErrClaimed
	}
	if z, ok := o.zombies[h.pid]; ok && z.start == h.start && z.seen <= w.order {
		return ErrTooOld // seen dead before the window, perhaps in the same tick
	}
	if err := w.accept(h.ns); err != nil {
		return err
	}
	o.put(h)
	return nil
}

// accept says whether a process of the pid namespace ino may be this window's, and learns the namespace if so. The caller
// holds Owner.mu.
func (w *Window) accept(ino uint64) error {
	o := w.owner
	own := o.own.ino.Load()
	switch known := w.ns.ino.Load(); {
	case known == ino && known != 0:
	case ino == otherNS: // one below ours: which one cannot be read
		if known == own {
			return ErrWrongNamespace
		}
	case known != 0:
		return ErrWrongNamespace
	case ino != own && o.inUse[ino] > 0:
		return ErrWrongNamespace // another container's: ours has no claimed process yet
	default:
		// A runtime that makes no namespace leaves the process in ours; then the container shares it.
		w.ns.learn(ino, ino == own)
	}
	if ino == own {
		o.sharing = true
	}
	return nil
}

// peek looks at a child without reaping it. dead says whether it has exited and can be reaped: a dead child held by a
// tracer is not.
func (o *Owner) peek(idType, id int) (dead bool, err error) {
	err = retry(func() (err error) {
		_, dead, err = o.sys.waitid(idType, id, true)
		return err
	})
	return dead, err
}

// isClosed says whether the window has ended.
func (w *Window) isClosed() bool {
	w.owner.mu.Lock()
	defer w.owner.mu.Unlock()
	return w.closed
}
