package bootstrap

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// gifts runs body with an idler, in synthetic time. given lists when it has given.
func gifts(t *testing.T, body func(r *idler, given func() []time.Duration)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		r := newIdler(func() bool { return false }, slog.New(slog.DiscardHandler))
		var mu sync.Mutex
		var all []time.Duration
		r.give = func() {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, time.Since(r.begun))
		}
		body(r, func() []time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		})
	})
}

func settleFor(d time.Duration) { time.Sleep(d); synctest.Wait() }

func TestMemoryIsGivenBackOnceAfterMuchWork(t *testing.T) {
	gifts(t, func(r *idler, given func() []time.Duration) {
		for range 10 * restWorth {
			r.called("Exec")
			settleFor(time.Millisecond)
		}
		if len(given()) != 0 {
			t.Fatalf("given during work: %v", given())
		}
		last := time.Since(r.begun)
		settleFor(24 * time.Hour)
		if len(given()) != 1 || given()[0]-last > restDelay+time.Millisecond {
			t.Fatalf("work ended at %v, given at %v", last, given())
		}
	})
}

func TestMemoryIsGivenBackSoonAfterCreate(t *testing.T) {
	gifts(t, func(r *idler, given func() []time.Duration) {
		r.called("Create")
		settleFor(restDelay)
		if len(given()) != 1 {
			t.Fatalf("given at %v", given())
		}
	})
}

// A probe every ten seconds does not cost a collection each, and a burst behind one does
// not wait for the long time.
func TestLittleWorkWaitsLonger(t *testing.T) {
	gifts(t, func(r *idler, given func() []time.Duration) {
		for range 20 {
			r.called("Exec")
			settleFor(10 * time.Second)
		}
		if len(given()) != 0 {
			t.Fatalf("given between probes: %v", given())
		}
		for range restWorth {
			r.called("Exec")
		}
		settleFor(restDelay)
		if len(given()) != 1 {
			t.Fatalf("not given after a burst: %v", given())
		}
		r.called("State")
		settleFor(24 * time.Hour)
		if len(given()) != 2 || given()[1]-given()[0] > 2*restLong {
			t.Fatalf("given at %v", given())
		}
	})
}

// While a runtime call is under way nothing is given, however long it takes.
func TestNoGiftWhileBusy(t *testing.T) {
	gifts(t, func(r *idler, given func() []time.Duration) {
		var busy atomic.Bool
		busy.Store(true)
		r.busy = busy.Load
		r.called("Create")
		settleFor(10 * restDelay)
		if len(given()) != 0 {
			t.Fatalf("given at %v", given())
		}
		busy.Store(false)
		settleFor(restDelay)
		if len(given()) != 1 {
			t.Fatalf("given at %v", given())
		}
	})
}

// What is given back is not missed: this program goes on, with less memory than before.
func TestGiveBack(t *testing.T) {
	garbage := make([]byte, 64<<20)
	for i := 0; i < len(garbage); i += 4096 {
		garbage[i] = 1
	}
	before := anonymousPages(t)
	(&giver{log: slog.New(slog.DiscardHandler)}).give()
	if after := anonymousPages(t); after > before-(32<<20)/4096 {
		t.Errorf("%d pages before, %d after", before, after)
	}
}

// anonymousPages is the second number of proc_pid_statm(5) less the third.
func anonymousPages(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident, shared int
	if _, err := fmt.Sscan(string(text), &size, &resident, &shared); err != nil {
		t.Fatal(err)
	}
	return resident - shared
}
