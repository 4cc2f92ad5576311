package children

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inFlight are the starts in flight under which the cost of one exit is looked at.
var inFlight = []int{1, 8, 64, 512}

// busy makes an Owner with as many starts in flight: windows that are open, each with a call that runs.
func busy(tb testing.TB, sys system, starts int) (o *Owner, over func()) {
	o = owner(tb, sys)
	ctx, cancel := context.WithCancel(context.Background())
	var windows []*Window
	var calls []*Process
	done := make(chan struct{}, starts)
	for range starts {
		windows = append(windows, o.Begin(o.OwnNamespace()))
		p, err := o.Start(exec.Command("sleep", "3600"))
		if err != nil {
			tb.Fatal(err)
		}
		calls = append(calls, p)
		go func() { _, _ = p.Wait(ctx); done <- struct{}{} }()
	}
	return o, func() {
		cancel()
		for _, w := range windows {
			w.Close()
		}
		for _, p := range calls {
			<-done
			_ = p.Signal(unix.SIGKILL)
			_, _ = p.Wait(context.Background())
		}
	}
}

// exits makes n children, kept dead by a window, and gives the time to claim, wait for and reap each.
func exits(tb testing.TB, o *Owner, n int) []time.Duration {
	w := o.Begin(o.OwnNamespace())
	defer w.Close()
	pids := run(tb, o, crowd(n))
	took := make([]time.Duration, 0, n)
	for _, pid := range pids {
		began := time.Now()
		child, err := w.Claim(pid)
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := child.Wait(context.Background()); err != nil {
			tb.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	return took
}

// BenchmarkExit is the cost of one exit, from the claim to the status, with more and more starts in flight. It is to be
// flat: the seed's scheme copies each exit to every start in flight.
func BenchmarkExit(b *testing.B) {
	for _, starts := range inFlight {
		b.Run(fmt.Sprint(starts), func(b *testing.B) {
			o, over := busy(b, kernel{}, starts)
			defer over()
			var took []time.Duration
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; left -= 200 {
				took = append(took, exits(b, o, min(left, 200))...)
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "median-ns/exit")
		})
	}
}

// asking counts what the kernel is asked for the exit of one process.
type asking struct {
	system
	mu  sync.Mutex
	pid int
	fd  int
	n   int
}

// about begins to count for another process.
func (a *asking) about(pid int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pid, a.fd, a.n = pid, -1, 0
}

// asked is how often the kernel was asked for it.
func (a *asking) asked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.n
}

func (a *asking) count(mine func() bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if mine() {
		a.n++
	}
}

func (a *asking) pidfdOpen(pid int) (int, error) {
	fd, err := a.system.pidfdOpen(pid)
	a.count(func() bool {
		if pid == a.pid && err == nil {
			a.fd = fd
		}
		return pid == a.pid
	})
	return fd, err
}

func (a *asking) waitid(idType, id int, peek bool) (exited, bool, error) {
	// The sweep asks by pid and for all; those questions are not on the way of the exit.
	a.count(func() bool { return idType == unix.P_PIDFD && id == a.fd })
	return a.system.waitid(idType, id, peek)
}

func (a *asking) readFile(path string, buf []byte) (int, error) {
	a.count(func() bool { return strings.HasPrefix(path, procPath(a.pid, "/")) })
	return a.system.readFile(path, buf)
}

func (a *asking) readLink(path string) (string, error) {
	a.count(func() bool { return strings.HasPrefix(path, procPath(a.pid, "/")) })
	return a.system.readLink(path)
}

// What the kernel is asked on the way of one exit does not depend on the starts in flight. (How long it takes is for
// BenchmarkExit.)
func TestExitIsFlat(t *testing.T) {
	asked := make(map[int]int)
	for _, starts := range inFlight {
		t.Run(fmt.Sprint(starts), func(t *testing.T) {
			sys := &asking{system: kernel{}}
			o, over := busy(t, sys, starts)
			defer over()
			w := o.Begin(o.OwnNamespace())
			defer w.Close()
			var each []int
			for _, pid := range run(t, o, crowd(50)) {
				sys.about(pid)
				child, err := w.Claim(pid)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := child.Wait(context.Background()); err != nil {
					t.Fatal(err)
				}
				each = append(each, sys.asked())
			}
			// The least: the sweep may have looked at one of them in the middle.
			asked[starts] = slices.Min(each)
		})
	}
	t.Logf("the kernel is asked %d times for one exit", asked[1])
	for _, starts := range inFlight {
		if asked[starts] != asked[1] || asked[starts] == 0 {
			t.Errorf("with %d starts in flight %d times, with one %d times", starts, asked[starts], asked[1])
		}
	}
}
