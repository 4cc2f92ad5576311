package children

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Owner owns all children of this program. There is one per program at a time,
// since being a subreaper and SIGCHLD are the program's, and the sweep of one
// Owner would reap the children of another.
type Owner struct {
	log  *slog.Logger
	sys  system
	self int
	own  *PIDNamespace
	null *os.File // /dev/null, for the streams that a process is not given
	// starts are under way: they use null. One begins under mu and before closed only.
	starts sync.WaitGroup
	// life ends with Close, and with it every fork whose program does not run yet.
	life    context.Context
	endLife context.CancelFunc

	// armed has a value in it when the sweep has something to look for: SIGCHLD came, or a window closed for which a
	// zombie waited. It holds one, so that to arm twice is to arm once.
	armed   chan os.Signal
	stop    chan struct{} // closed by Close
	stopped chan struct{} // closed when the sweep has ended
	closing sync.Once
	wasReap bool // whether the program was a subreaper before

	// mu guards all below. It is held for edits of the tables and for calls of the kernel that never sleep (waitid with
	// WNOHANG), never for a fork, a file of /proc, or a wait.
	//
	// Invariant: an entry is in known exactly from before anybody else could see the pid's exit until it is reaped, and
	// every reaping is done under mu. So a pid that is in known is pinned: no other process can have it.
	//
	// Other code of this program may reap all the same, in Guard or by mistake. So a pid alone is no key: an entry of known,
	// zombies or doomed means the process with that pid and start time (see holder), and only a pidfd is reaped or signalled.
	mu     sync.Mutex
	known  map[int]*held
	closed bool

	// windows are those that are open. order is the number of windows and observations so far: what was seen dead at
	// order n can belong only to a window with a smaller number.
	windows map[*Window]struct{}
	order   uint64

	// inUse counts the claimed, unreaped children by pid namespace.
	inUse map[uint64]int
	// sharing is set for ever once a container was seen to live in our own pid namespace. Such a container may make
	// namespaces of its own, whose processes come to us as orphans.
	sharing bool

	// zombies are the unknown dead, doomed the unknown living that KillTree has sentenced; both wait for windows.
	zombies map[int]zombie
	doomed  map[int]*condemned
	// reaped counts reapings, so that a listing can tell that it may have missed something.
	reaped uint64
}

// NewOwner makes this program a subreaper and begins to look after its children.
// A nil log means slog's default.
//
// Errors: ErrSecondOwner while another Owner of this program is not closed;
// NotImplemented where the kernel lacks what it takes: Linux 5.4 (waitid for
// pidfds), and /proc, mounted for our own pid namespace, with
// CONFIG_PROC_CHILDREN.
//
// Without CAP_SYS_PTRACE an Owner works, with a warning in the log: it cannot
// tell the pid namespaces of other users' processes apart (see Window.Claim and
// Process.KillTree).
func NewOwner(log *slog.Logger) (*Owner, error) {
	if log == nil {
		log = slog.Default()
	}
	return newOwner(log, kernel{})
}

// oneOwner is held from newOwner until the end of Close.
var oneOwner atomic.Bool

// newOwner is NewOwner over any system.
func newOwner(log *slog.Logger, sys system) (*Owner, error) {
	if !oneOwner.CompareAndSwap(false, true) {
		return nil, ErrSecondOwner
	}
	o, err := openOwner(log, sys)
	if err != nil {
		oneOwner.Store(false)
		return nil, err
	}
	return o, nil
}

// openOwner makes an Owner. The caller holds oneOwner.
func openOwner(log *slog.Logger, sys system) (*Owner, error) {
	o := &Owner{
		log: log, sys: sys, self: os.Getpid(), own: new(PIDNamespace),
		armed: make(chan os.Signal, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
		known: map[int]*held{}, windows: map[*Window]struct{}{}, inUse: map[uint64]int{},
		zombies: map[int]zombie{}, doomed: map[int]*condemned{},
	}
	o.life, o.endLife = context.WithCancel(context.Background())
	if err := o.probe(); err != nil {
		return nil, err
	}
	ino, err := namespaceOf(sys, o.self, otherNS)
	if err != nil {
		return nil, classed("own pid namespace", err)
	}
	o.own.learn(ino, true)
	if !maySeeNamespaces() {
		log.Warn("no CAP_SYS_PTRACE: the pid namespaces of other users' processes are not told apart")
	}
	if o.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, classed("stdio of what is forked", err)
	}
	if err := o.becomeSubreaper(); err != nil {
		o.null.Close()
		return nil, err
	}
	// Notify also undoes an inherited SIG_IGN, under which the kernel would reap our children itself (wait(2)).
	signal.Notify(o.armed, unix.SIGCHLD)
	keep(log, "sweep of orphans", func() {
		o.arm() // whatever we inherited, or a sweep that panicked did not come to
		o.sweeper()
	}, func() { close(o.stopped) })
	return o, nil
}

// probe finds out whether the kernel can do what is asked of it here. It asks for the deed, not the version.
func (o *Owner) probe() error {
	link, err := o.sys.readLink("/proc/self")
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return classed("own pid", err)
	}
	if link != strconv.Itoa(o.self) {
		return fmt.Errorf("/proc is not that of our pid namespace (%q): %w", link, errdefs.ErrNotImplemented)
	}
	if err := o.probePidfd(); err != nil {
		return fmt.Errorf("needs Linux 5.4 or newer, this is %s: %w: %w", release(), errdefs.ErrNotImplemented, err)
	}
	if _, err := readAll(o.sys, "/proc/self/task/"+strconv.Itoa(o.self)+"/children", nil); err != nil {
		return fmt.Errorf("needs a kernel with CONFIG_PROC_CHILDREN: %w: %w", errdefs.ErrNotImplemented, err)
	}
	return nil
}

// probePidfd waits for ourselves by pidfd. We are not our own child, so that a kernel that understands the question
// (5.4) says ECHILD, and an older one EINVAL.
func (o *Owner) probePidfd() error {
	var fd int
	err := retry(func() (err error) {
		fd, err = o.sys.pidfdOpen(o.self)
		return err
	})
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(fd)
	err = retry(func() error {
		_, _, err := o.sys.waitid(unix.P_PIDFD, fd, true)
		return err
	})
	if !errors.Is(err, unix.ECHILD) {
		return fmt.Errorf("waitid by pidfd: %w", errOr(err, unix.EINVAL))
	}
	return nil
}

// errOr gives err, or another error where there is none.
func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// release is the kernel's version, for messages.
func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// becomeSubreaper makes orphaned descendants our children (PR_SET_CHILD_SUBREAPER in prctl(2)).
func (o *Owner) becomeSubreaper() error {
	var was int
	if err := prctlGetSubreaper(&was); err != nil {
		return classed("subreaper", err)
	}
	o.wasReap = was != 0
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return classed("subreaper", err)
	}
	return nil
}

// Close ends the sweep and gives every descriptor back. Waits that are still under way end with ErrClosed. No process is
// killed whose program runs. What was a subreaper before stays one. After it NewOwner may be called again. Idempotent.
func (o *Owner) Close() error {
	o.closing.Do(func() {
		signal.Stop(o.armed)
		close(o.stop)
		<-o.stopped
		o.mu.Lock()
		o.closed = true
		o.mu.Unlock()
		o.endLife()
		o.starts.Wait() // they enter what they have forked, and are the last
		o.mu.Lock()
		left := make([]*held, 0, len(o.known))
		for _, h := range o.known {
			left = append(left, h)
		}
		doomed := o.doomed
		o.doomed = map[int]*condemned{}
		o.mu.Unlock()
		for _, h := range left {
			h.release()
		}
		for _, c := range doomed {
			unix.Close(c.fd)
		}
		o.null.Close()
		if !o.wasReap {
			_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
		}
		oneOwner.Store(false)
	})
	return nil
}

// Guard runs third-party code that forks and waits by itself (an idmapped mount, say), such that the sweep does not steal
// its children: while it runs, and for as long as one of its zombies was seen while it ran, it counts as an open window of
// our own pid namespace, in which its children must live. It returns what fn returns.
func (o *Owner) Guard(fn func() error) error {
	w := o.Begin(o.own)
	defer w.Close()
	return fn()
}

// arm makes the sweep look. It never blocks.
func (o *Owner) arm() {
	select {
	case o.armed <- unix.SIGCHLD:
	default:
	}
}

// holder is the known process that has this pid and began at start, nil if there
// is none. A known process whose pid another has now (some other code of this
// program has reaped it) is not that other. The caller holds mu.
func (o *Owner) holder(pid int, start uint64) *held {
	if h := o.known[pid]; h != nil && h.is(start) {
		return h
	}
	return nil
}

// put enters a process in the table, as the only one with its pid. The caller
// holds mu.
func (o *Owner) put(h *held) {
	if old := o.known[h.pid]; old != nil {
		o.forget(old)
	}
	o.known[h.pid] = h
	if h.ns != 0 {
		o.inUse[h.ns]++
	}
	delete(o.zombies, h.pid)
}

// forget takes a process out of the table, which has just been reaped or given up. The caller holds mu.
func (o *Owner) forget(h *held) {
	if o.known[h.pid] != h {
		return
	}
	delete(o.known, h.pid)
	if h.ns == 0 {
		return
	}
	if o.inUse[h.ns]--; o.inUse[h.ns] <= 0 {
		delete(o.inUse, h.ns)
	}
}
