package children

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Row 31, W2: thousands of children that are dead before they are claimed. None is lost, none is another's.
func TestDeadBeforeClaimed(t *testing.T) {
	o := owner(t, kernel{})
	const calls, each = 16, 250 / thin
	var group sync.WaitGroup
	for range calls {
		group.Go(func() {
			w := o.Begin(o.OwnNamespace())
			defer w.Close()
			pids := run(t, o, crowd(each))
			if len(pids) != each {
				t.Errorf("%d children", len(pids))
			}
			for i, pid := range pids {
				child, err := w.Claim(pid)
				if err != nil {
					t.Error(err)
					return
				}
				exit, err := child.Wait(impatient(t))
				if err != nil || exit.Status != uint32(i%251) || exit.At.IsZero() {
					t.Errorf("child %d: %+v, %v", i, exit, err)
				}
			}
		})
	}
	group.Wait()
	t.Logf("%d children claimed, none lost", calls*each)
}

// Row 55: ten thousand exits at once, under as few SIGCHLD as the kernel likes; nobody knows them.
func TestRow55TenThousandOrphansAtOnce(t *testing.T) {
	o := owner(t, kernel{})
	w := o.Begin(o.OwnNamespace()) // none may go before it closes
	const crowds, each = 10, 1000 / thin
	for range crowds {
		run(t, o, crowd(each))
	}
	eventually(t, "all are dead and kept", func() string {
		if n := zombies(t); n != crowds*each {
			return fmt.Sprint(n, " zombies")
		}
		return ""
	})
	began := time.Now()
	w.Close()
	eventually(t, "all are reaped", func() string {
		if pids, err := childrenOf(kernel{}, "self"); err != nil || len(pids) > 0 {
			return fmt.Sprint(len(pids), " left", err)
		}
		return ""
	})
	t.Logf("%d orphans reaped %v after the window had closed", crowds*each, time.Since(began))
}

// unbrokenLoad keeps windows open, one after the other, such that each begins before the last of another has closed.
func unbrokenLoad(o *Owner) (stop func()) {
	const windows, life = 8, 30 * time.Millisecond
	over := make(chan struct{})
	var load sync.WaitGroup
	for i := range windows {
		first := life * time.Duration(windows+i) / windows // spreads them
		load.Go(func() {
			for lasts := first; ; lasts = life {
				w := o.Begin(o.OwnNamespace())
				select {
				case <-over:
					w.Close()
					return
				case <-time.After(lasts):
				}
				w.Close()
			}
		})
	}
	return func() { close(over); load.Wait() }
}

// Orphans are reaped, and do not pile up, while at every moment some window is open.
func TestOrphansUnderUnbrokenLoad(t *testing.T) {
	o := owner(t, kernel{})
	const rounds, each = 60, 50 / thin
	stopLoad := unbrokenLoad(o)
	defer stopLoad()
	// What a crowd leaves is reaped while the load goes on, however long that takes.
	few := func(most int) {
		eventually(t, "orphans are reaped under the load", func() string {
			if n := zombies(t); n > most {
				return fmt.Sprint(n, " zombies")
			}
			return ""
		})
	}
	for range rounds {
		run(t, o, crowd(each))
		if few(3 * each); t.Failed() {
			return // each further round would wait as long
		}
	}
	few(0)
	t.Logf("%d orphans, never more than %d at once", rounds*each, 4*each)
}

// refusal is one lie of a pid file.
type refusal struct {
	name string
	pid  int
	want error
}

// Row 31, R5: a pid file that lies is refused, and nobody is signalled.
func TestRefusedClaims(t *testing.T) {
	o := owner(t, kernel{})
	// A stranger: the child of somebody else, who lives.
	nanny := exec.Command("busybox", "sh", "-c", "sleep 3600 & echo $!; wait")
	out, said := pipe(t)
	nanny.Stdout = said
	keeper, err := o.Start(nanny)
	if err != nil {
		t.Fatal(err)
	}
	var stranger int
	if _, err := fmt.Fscan(out, &stranger); err != nil {
		t.Fatal(err)
	}
	containerB := NewNamespace()
	initB := claimed(t, o, containerB, call{Argv: []string{"sleep", "3600"}, New: true})
	daemonB := run(t, o, call{Argv: []string{"sleep", "3600"}, Join: procPath(initB.Pid(), "/ns/pid")}.command(t))[0]
	daemonHost := run(t, o, call{Argv: []string{"sleep", "3600"}}.command(t))[0]
	mine := claimed(t, o, o.OwnNamespace(), call{Argv: []string{"sleep", "3600"}})
	thread := otherThread(t, o.self)

	nextTick(o)
	refused(t, o.Begin(o.OwnNamespace()), []refusal{
		{"minus one", -1, ErrBadPid}, {"zero", 0, ErrBadPid}, {"one", 1, ErrBadPid}, {"own", o.self, ErrBadPid},
		{"lowest", -1 << 31, ErrBadPid}, {"nobody", 1 << 22, ErrNotChild}, {"a thread of ours", thread, ErrNotChild},
		{"a stranger", stranger, ErrNotChild}, {"a call", keeper.Pid(), ErrTooOld}, {"claimed", mine.Pid(), ErrTooOld},
		{"an older daemon", daemonHost, ErrTooOld}, {"another container's daemon", daemonB, ErrTooOld},
	})
	// The same daemons, but younger than the window: in a namespace of its own the daemon is known by that.
	w := o.Begin(o.OwnNamespace())
	unlearnt, learnt := o.Begin(NewNamespace()), o.Begin(containerB)
	youngB := run(t, o, call{Argv: []string{"sleep", "3600"}, Join: procPath(initB.Pid(), "/ns/pid")}.command(t))[0]
	youngHost := run(t, o, call{Argv: []string{"sleep", "3600"}}.command(t))[0]
	refused(t, w, []refusal{{"another container's young daemon", youngB, ErrWrongNamespace}})
	refused(t, unlearnt, []refusal{{"another container's young daemon, by create", youngB, ErrWrongNamespace}})
	refused(t, learnt, []refusal{{"a process of the host's", youngHost, ErrWrongNamespace}})

	for _, pid := range []int{stranger, daemonB, daemonHost, youngB, youngHost, mine.Pid(), keeper.Pid()} {
		if st, err := statOf(kernel{}, pid); err != nil || st.dead() || st.state == 'T' {
			t.Errorf("process %d was harmed: %c, %v", pid, st.state, err)
		}
	}
	for _, pid := range []int{daemonHost, youngHost} {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	end(t, mine)
	end(t, initB) // takes its daemons with it
	if err := keeper.KillTree(nil); err != nil {
		t.Error(err)
	}
}

// refused tries claims in a window and closes it.
func refused(t *testing.T, w *Window, cases []refusal) {
	t.Helper()
	defer w.Close()
	for _, c := range cases {
		child, err := w.Claim(c.pid)
		var claim *ClaimError
		if child != nil || !errors.Is(err, c.want) || !errors.As(err, &claim) || claim.Pid != c.pid {
			t.Errorf("%s (%d): %v, want %v", c.name, c.pid, err, c.want)
		}
		if !errdefs.IsInternal(err) {
			t.Errorf("%s: class of %v", c.name, err)
		}
	}
}

// nextTick lets the clock of start times go on, so that what began before is older than a window.
func nextTick(o *Owner) {
	for now := o.sys.bootTicks(); o.sys.bootTicks() <= now; {
		time.Sleep(time.Millisecond)
	}
}

// otherThread gives the id of a thread that leads no process.
func otherThread(t *testing.T, process int) int {
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		var id int
		if _, err := fmt.Sscan(filepath.Base(task), &id); err == nil && id != process {
			return id
		}
	}
	t.Fatal("the Go runtime has one thread only")
	return 0
}

// A process is claimed once, by one window, and not after the window.
func TestClaimedOnce(t *testing.T) {
	o := owner(t, kernel{})
	a, b := o.Begin(o.OwnNamespace()), o.Begin(o.OwnNamespace())
	pids := run(t, o, crowd(2))
	child, err := a.Claim(pids[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Claim(pids[0]); !errors.Is(err, ErrClaimed) {
		t.Error("claimed twice:", err)
	}
	a.Close()
	a.Close()
	if _, err := a.Claim(pids[1]); !errors.Is(err, ErrWindowClosed) || !errdefs.IsFailedPrecondition(err) {
		t.Error("claimed after the window:", err)
	}
	if _, err := child.Wait(impatient(t)); err != nil {
		t.Error(err)
	}
	if _, err := b.Claim(pids[0]); !errors.Is(err, ErrNotChild) {
		t.Error("claimed after it was reaped:", err)
	}
	b.Close()
}

// Many wait for one exit: all are told the same; one that gives up is not told and disturbs nobody.
func TestManyWaiters(t *testing.T) {
	o := owner(t, kernel{})
	child := claimed(t, o, o.OwnNamespace(), call{Argv: []string{"sleep", "3600"}})
	cancelled, cancel := context.WithCancel(context.Background())
	var quitters, waiters sync.WaitGroup
	for range 20 {
		quitters.Go(func() {
			if exit, err := child.Wait(cancelled); !errors.Is(err, context.Canceled) {
				t.Errorf("%+v, %v", exit, err)
			}
		})
	}
	exits := make(chan Exit, 20)
	for range cap(exits) {
		waiters.Go(func() {
			exit, err := child.Wait(impatient(t))
			if err != nil {
				t.Error(err)
			}
			exits <- exit
		})
	}
	cancel()
	quitters.Wait()
	if err := child.Signal(unix.SIGUSR1); err != nil {
		t.Error(err)
	}
	waiters.Wait()
	first := <-exits
	for range cap(exits) - 1 {
		if other := <-exits; other != first {
			t.Errorf("%+v and %+v", first, other)
		}
	}
	if first.Status != 128+uint32(unix.SIGUSR1) {
		t.Errorf("%+v", first)
	}
	if exit, err := child.Wait(cancelled); err != nil || exit != first {
		t.Errorf("afterwards: %+v, %v", exit, err)
	}
	if err := child.Signal(unix.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
}
