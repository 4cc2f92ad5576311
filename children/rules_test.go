package children

// Rules that a storm shows only now and then, each shown by itself: the sweep is
// called by hand, at the moment that matters.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dies waits until a process of ours is dead, and does not reap it.
func dies(t testing.TB, pid int) {
	t.Helper()
	eventually(t, "it is dead", func() string {
		if st, err := statOf(kernel{}, pid); err != nil || !st.dead() {
			return fmt.Sprintf("%c %v", st.state, err)
		}
		return ""
	})
}

// A claimed child that is dead stays for its owner, whatever the sweep sees, and
// takes no signal.
func TestSweepLeavesTheClaimed(t *testing.T) {
	o := owner(t, kernel{})
	w := o.Begin(o.OwnNamespace())
	var claims []*Child
	for _, pid := range run(t, o, crowd(5)) {
		child, err := w.Claim(pid)
		if err != nil {
			t.Fatal(err)
		}
		dies(t, pid)
		claims = append(claims, child)
	}
	w.Close()
	for range 3 {
		o.sweep()
	}
	for i, child := range claims {
		if err := child.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal to the dead: %v", err)
		}
		if exit, err := child.Wait(impatient(t)); err != nil || exit.Status != uint32(i) {
			t.Errorf("%+v, %v, want %d", exit, err, i)
		}
	}
}

// lateFork is a kernel whose fork returns when the child has died and was swept.
type lateFork struct {
	system
	t     *testing.T
	owner atomic.Pointer[Owner]
}

func (l *lateFork) fork(path string, argv []string, attr *syscall.ProcAttr, f *flight) (int, error) {
	pid, err := l.system.fork(path, argv, attr, f)
	if err == nil {
		dies(l.t, pid)
		for range 3 {
			l.owner.Load().sweep()
		}
	}
	return pid, err
}

// What this program forks is not swept before it is known.
func TestStartIsAWindow(t *testing.T) {
	sys := &lateFork{system: kernel{}, t: t}
	o := owner(t, sys)
	sys.owner.Store(o)
	p, err := o.Start(exec.Command("sh", "-c", "exit 7"))
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(impatient(t)); err != nil || exit.Status != 7 {
		t.Errorf("%+v, %v", exit, err)
	}
}

// What code in Guard forks is not swept before that code has waited for it.
func TestGuardIsAWindow(t *testing.T) {
	o := owner(t, kernel{})
	err := o.Guard(func() error {
		cmd := exec.Command("sh", "-c", "exit 3")
		if err := cmd.Start(); err != nil {
			return err
		}
		dies(t, cmd.Process.Pid)
		for range 3 {
			o.sweep()
		}
		return cmd.Wait()
	})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Error(err)
	}
}

// An orphan waits for the windows that were open when it was seen, and for no
// later one.
func TestOrphanWaitsForNoLaterWindow(t *testing.T) {
	o := owner(t, kernel{})
	early := o.Begin(o.OwnNamespace())
	run(t, o, crowd(1))
	eventually(t, "the orphan is seen", func() string {
		o.sweep()
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.zombies) != 1 {
			return fmt.Sprint(len(o.zombies), " zombies")
		}
		return ""
	})
	late := o.Begin(o.OwnNamespace())
	defer late.Close()
	o.sweep() // seen again, while the later one is open
	early.Close()
	eventually(t, "the orphan is reaped while a later window is open", func() string {
		o.sweep()
		if n := zombies(t); n > 0 {
			return fmt.Sprint(n, " zombies")
		}
		return ""
	})
}

// The close of a window wakes the sweep if something waits for a window, and only
// then. Without a sweep that takes it the signal can be seen.
func TestCloseOfAWindowArmsTheSweep(t *testing.T) {
	for _, waits := range []bool{false, true} {
		o := &Owner{sys: kernel{}, own: new(PIDNamespace), armed: make(chan os.Signal, 1), windows: map[*Window]struct{}{}}
		w := o.Begin(nil)
		if waits {
			o.zombies = map[int]zombie{1 << 22: {}}
		}
		w.Close()
		if armed := len(o.armed) == 1; armed != waits {
			t.Errorf("zombies wait: %v; armed: %v", waits, armed)
		}
	}
}

// blind is a kernel that does not list children while it is blind.
type blind struct {
	system
	is    atomic.Bool
	tries atomic.Int64
}

func (b *blind) subDirs(path string) ([]string, error) {
	if b.is.Load() && strings.HasPrefix(path, "/proc/self/task") {
		b.tries.Add(1)
		return nil, unix.EIO
	}
	return b.system.subDirs(path)
}

// A sweep that fails is tried again, without a further signal.
func TestSweepTriesAgain(t *testing.T) {
	sys := &blind{system: kernel{}}
	o := owner(t, sys)
	sys.is.Store(true)
	run(t, o, crowd(1))
	const signals = 8 // more than come of two exits
	eventually(t, "it is tried again", func() string {
		if n := sys.tries.Load(); n < signals {
			return fmt.Sprint("tried ", n, " times")
		}
		return ""
	})
	sys.is.Store(false)
	eventually(t, "the orphan is reaped", func() string {
		if n := zombies(t); n > 0 {
			return fmt.Sprint(n, " zombies")
		}
		return ""
	})
}

// One that gives up waiting leaves the pidfd to the others.
func TestWaitIsGivenBack(t *testing.T) {
	o := owner(t, kernel{})
	child := claimed(t, o, o.OwnNamespace(), call{Argv: []string{"sleep", "3600"}})
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() { _, err := child.Wait(ctx); gone <- err }()
	eventually(t, "it waits", func() string {
		child.held.mu.Lock()
		defer child.held.mu.Unlock()
		if child.held.file == nil {
			return "not yet"
		}
		return ""
	})
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	end(t, child)
}

// rumour is a kernel in which a file of children names one process too many, as
// one that was read before the process had the number may.
type rumour struct {
	system
	stranger atomic.Int64
	parent   atomic.Int64
}

func (r *rumour) readFile(path string, buf []byte) (int, error) {
	n, err := r.system.readFile(path, buf)
	parent, stranger := r.parent.Load(), r.stranger.Load()
	if err == nil && parent != 0 && strings.HasPrefix(path, "/proc/"+strconv.FormatInt(parent, 10)+"/task/") && n < len(buf) {
		n += copy(buf[n:], strconv.FormatInt(stranger, 10)+" ")
	}
	return n, err
}

// KillTree does not kill a process whose number it has from a file of children, but
// which is not a child of the call.
func TestKillTreeSparesAReusedNumber(t *testing.T) {
	sys := &rumour{system: kernel{}}
	o := owner(t, sys)
	call := exec.Command("sleep", "3600")
	p, err := o.Start(call)
	if err != nil {
		t.Fatal(err)
	}
	// Not known: what is known is spared anyway.
	stranger := run(t, o, crowdThatSleeps())[0]
	sys.stranger.Store(int64(stranger))
	sys.parent.Store(int64(p.Pid()))
	if err := p.KillTree(nil); err != nil {
		t.Error(err)
	}
	if st, err := statOf(kernel{}, stranger); err != nil || st.dead() || st.state == 'T' {
		t.Errorf("the stranger was harmed: %c, %v", st.state, err)
	}
	_ = unix.Kill(stranger, unix.SIGKILL)
}

// crowdThatSleeps makes one process, which sleeps, and prints its pid.
func crowdThatSleeps() *exec.Cmd {
	return exec.Command("busybox", "sh", "-c", "sleep 3600 >/dev/null 2>&1 & echo $!")
}

// witness is a kernel that writes down which processes are signalled.
type witness struct {
	system
	mu        sync.Mutex
	signalled map[int]bool
}

func (w *witness) pidfdSignal(fd int, sig unix.Signal) error {
	// "Pid:\t123" in /proc/self/fdinfo (pidfd_open(2)).
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if _, pid, ok := strings.Cut(string(text), "Pid:"); err == nil && ok {
		var n int
		_, _ = fmt.Sscan(pid, &n)
		w.mu.Lock()
		w.signalled[n] = true
		w.mu.Unlock()
	}
	return w.system.pidfdSignal(fd, sig)
}

// In a pid namespace that others share KillTree kills the call's own tree only.
func TestKillTreeInASharedNamespace(t *testing.T) {
	sys := &witness{system: kernel{}, signalled: map[int]bool{}}
	o := owner(t, sys)
	p, err := o.Start(exec.Command("sleep", "3600"))
	if err != nil {
		t.Fatal(err)
	}
	daemon := run(t, o, crowdThatSleeps())[0] // younger than the call
	shared := new(PIDNamespace)
	shared.learn(o.own.ino.Load(), true)
	if err := p.KillTree(shared); err != nil {
		t.Error(err)
	}
	o.sweep()
	sys.mu.Lock()
	if !sys.signalled[p.Pid()] || sys.signalled[daemon] {
		t.Errorf("signalled: %v; the call is %d, a daemon of another container %d", sys.signalled, p.Pid(), daemon)
	}
	sys.mu.Unlock()
	_ = unix.Kill(daemon, unix.SIGKILL)
}
