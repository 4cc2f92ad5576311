package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

const second = time.Second

func newQueue(atOnce int) *Queue { return New(slog.New(slog.DiscardHandler), Limits{AtOnce: atOnce}) }

// enter enters a call that is admitted at once.
func enter(t *testing.T, q *Queue, container string, l Lane) *Turn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	turn, err := q.Enter(ctx, container, l)
	if err != nil {
		t.Fatalf("%s is not admitted at once: %v", container, err)
	}
	return turn
}

// admitted is the calls that were admitted, in their order.
type admitted struct {
	names []string
	turns []*Turn
}

// later enters a call on a goroutine, and waits until it has come to rest there.
func (a *admitted) later(t *testing.T, q *Queue, name, container string) {
	go func() {
		if turn, err := q.Enter(t.Context(), container, Work); err == nil {
			a.names, a.turns = append(a.names, name), append(a.turns, turn)
		}
	}()
	synctest.Wait()
}

// wantEmpty reports what is left in a queue that nobody uses.
func wantEmpty(t *testing.T, q *Queue) {
	t.Helper()
	for i := range q.lanes {
		if l := &q.lanes[i]; len(l.running)+len(l.lines)+l.waiting != 0 {
			t.Errorf("lane %d: %d run, %d lines, %d wait", i, len(l.running), len(l.lines), l.waiting)
		}
	}
}

// A runtime that serialises its calls and takes two seconds for each: each of 60
// calls at once has its two minutes, though the last ends after as many.
func TestF12SerialRuntimeLosesNoCall(t *testing.T) {
	for _, c := range []struct{ containers, atOnce int }{{1, 4}, {3, 4}, {1, 128}} {
		containers := c.containers
		synctest.Test(t, func(t *testing.T) {
			const calls, each, deadline = 60, 2 * second, 2 * time.Minute
			q := newQueue(c.atOnce)
			runtime := make(chan struct{}, 1) // held by the call that runs
			longest := make(chan time.Duration, calls)
			for i := range calls {
				go func() {
					turn, err := q.Enter(t.Context(), fmt.Sprint(i%containers), Work)
					if err != nil {
						t.Error(err)
						return
					}
					defer turn.Leave()
					began := time.Now()
					runtime <- struct{}{}
					time.Sleep(each)
					<-runtime
					longest <- time.Since(began)
				}()
			}
			var worst time.Duration
			for range calls {
				worst = max(worst, <-longest)
			}
			// Four run at once in one container. Calls of other containers count for
			// a second only, so that more run with several.
			limit := map[int]time.Duration{1: 4 * each, 3: deadline}[containers]
			if worst > limit {
				t.Errorf("%d containers: a call took %v, want at most %v", containers, worst, limit)
			}
			synctest.Wait()
			wantEmpty(t, q)
		})
	}
}

// Calls that are quick widen a queue that may be wide, a slow one makes it narrow.
func TestF12QuickCallsWidenTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls, each = 1000, 10 * time.Millisecond
		q := newQueue(64)
		most := 0
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range calls {
			wg.Go(func() {
				turn, err := q.Enter(t.Context(), "c", Work)
				if err != nil {
					t.Error(err)
					return
				}
				defer turn.Leave()
				mu.Lock()
				turn.lane.mu.Lock()
				most = max(most, len(turn.lane.running))
				turn.lane.mu.Unlock()
				mu.Unlock()
				time.Sleep(each)
			})
		}
		began := time.Now()
		wg.Wait()
		// Sixteen rounds of 64, and those in which it widens.
		if took := time.Since(began); took > 22*each || most != 64 {
			t.Errorf("%d calls took %v, %d ran at once, want 64", calls, took, most)
		}
		slow := enter(t, q, "c", Work)
		time.Sleep(countsFor)
		slow.Leave()
		var turns []*Turn
		for range narrow {
			turns = append(turns, enter(t, q, "c", Work))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		if _, err := q.Enter(ctx, "c", Work); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after a slow call: %v", err)
		}
		for _, turn := range turns {
			turn.Leave()
		}
		wantEmpty(t, q)
	})
}

// Calls of a container are admitted in the order in which they came, one for
// each that leaves; one that comes when others wait does not overtake them.
func TestF12FirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		var order admitted
		a, b := enter(t, q, "c", Work), enter(t, q, "c", Work)
		for i := range 4 {
			order.later(t, q, fmt.Sprint(i), "c")
		}
		if len(order.names) != 0 {
			t.Fatalf("%v run beside two", order.names)
		}
		a.Leave()
		a.Leave() // the second does nothing
		synctest.Wait()
		order.later(t, q, "late", "c")
		if !slices.Equal(order.names, []string{"0"}) {
			t.Fatalf("admitted %v, want the first alone", order.names)
		}
		b.Leave()
		synctest.Wait()
		for i := range 3 {
			order.turns[i].Leave()
			synctest.Wait()
		}
		if want := []string{"0", "1", "2", "3", "late"}; !slices.Equal(order.names, want) {
			t.Errorf("admitted in the order %v, want %v", order.names, want)
		}
	})
}

// Containers take turns: a burst in one does not hold up the call of another.
func TestF12ContainersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		turn := enter(t, q, "a", Work)
		var order []string
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i, container := range []string{"a", "a", "a", "b", "a", "b", "c"} {
			wg.Go(func() {
				next, err := q.Enter(t.Context(), container, Work)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, fmt.Sprint(container, i))
				mu.Unlock()
				time.Sleep(time.Millisecond)
				next.Leave()
			})
			synctest.Wait()
		}
		turn.Leave()
		wg.Wait()
		if want := []string{"a0", "b3", "c6", "a1", "b5", "a2", "a4"}; !slices.Equal(order, want) {
			t.Errorf("admitted in the order %v, want %v", order, want)
		}
		wantEmpty(t, q)
	})
}

// A call that hangs counts for a second for other containers, ten for its own.
func TestF12HungCallsHoldUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		enter(t, q, "a", Work)
		enter(t, q, "a", Work)
		began := time.Now()
		took := map[string]time.Duration{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, container := range []string{"a", "b", "c"} {
			wg.Go(func() {
				turn, err := q.Enter(t.Context(), container, Work)
				if err != nil {
					t.Error(err)
					return
				}
				defer turn.Leave()
				mu.Lock()
				took[container] = time.Since(began)
				mu.Unlock()
			})
		}
		wg.Wait()
		if took["a"] != countsForOwn || took["b"] != countsFor || took["c"] != countsFor {
			t.Errorf("admitted after %v", took)
		}
	})
}

// Kill and Delete wait for no call that is not theirs, and hold up none.
func TestF12UrgentHasALaneOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		work := enter(t, q, "c", Work)
		urgent := enter(t, q, "c", Urgent)
		var order admitted
		order.later(t, q, "work", "c")
		if len(order.names) != 0 || q.Waiting(Work) != 1 || q.Waiting(Urgent) != 0 {
			t.Fatalf("admitted %v, %d wait", order.names, q.Waiting(Work))
		}
		urgent.Leave()
		synctest.Wait()
		if len(order.names) != 0 {
			t.Fatalf("admitted %v by the end of a kill", order.names)
		}
		work.Leave()
		synctest.Wait()
		if len(order.names) != 1 {
			t.Errorf("not admitted by the end of the call before it")
		}
	})
}

// A caller that has gone, or whose deadline has ended, leaves nothing, and those
// behind it move up.
func TestF12CallersLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		turn := enter(t, q, "c", Work)
		gone, cancel := context.WithCancel(t.Context())
		short, cancelShort := context.WithTimeout(t.Context(), second/2)
		defer cancelShort()
		errs := make(chan error, 2)
		for _, ctx := range []context.Context{gone, short} {
			go func() { _, err := q.Enter(ctx, "c", Work); errs <- err }()
			synctest.Wait()
		}
		var order admitted
		order.later(t, q, "last", "c")
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("gone: %v", err)
		}
		if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("short: %v", err)
		}
		if n := q.Waiting(Work); n != 1 {
			t.Errorf("%d wait, want the last", n)
		}
		turn.Leave()
		synctest.Wait()
		if len(order.names) != 1 {
			t.Error("the last was not admitted")
		}
		if _, err := q.Enter(gone, "other", Work); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that had gone before: %v", err)
		}
	})
}

// A caller that is admitted and gone at the same moment gives its turn on.
func TestF12TurnOfACallerThatHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		for range 100 { // select picks one of two that are ready
			turn := enter(t, q, "c", Work)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan *Turn, 1)
			go func() { next, _ := q.Enter(ctx, "c", Work); done <- next }()
			synctest.Wait()
			cancel()
			turn.Leave()
			if next := <-done; next != nil {
				next.Leave()
			}
		}
		wantEmpty(t, q)
	})
}

func TestF12QueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		turn := enter(t, q, "c", Work)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range maxWaiting {
			wg.Go(func() { _, _ = q.Enter(ctx, fmt.Sprint(i%7), Work) })
		}
		synctest.Wait()
		if _, err := q.Enter(ctx, "c", Work); !errdefs.IsResourceExhausted(err) {
			t.Errorf("one too many: %v", err)
		}
		enter(t, q, "c", Urgent).Leave()
		cancel()
		wg.Wait()
		turn.Leave()
		wantEmpty(t, q)
	})
}

// At random: no more run than may, everyone gets a turn or an error, nothing is
// left.
func TestF12AtRandom(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			q := newQueue(1 + rng.IntN(4))
			var wg sync.WaitGroup
			for range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				if rng.IntN(4) == 0 {
					time.AfterFunc(time.Duration(rng.IntN(3000))*time.Millisecond, cancel)
				}
				container, l := fmt.Sprint(rng.IntN(4)), Lane(rng.IntN(int(lanes)))
				took := time.Duration(rng.IntN(900)) * time.Millisecond
				wg.Go(func() {
					defer cancel()
					turn, err := q.Enter(ctx, container, l)
					if err != nil {
						if ctx.Err() == nil {
							t.Errorf("seed %d: %v", seed, err)
						}
						return
					}
					defer turn.Leave()
					lane := turn.lane
					lane.mu.Lock()
					if n := len(lane.running); n > lane.limits.AtOnce {
						t.Errorf("seed %d: %d run at once", seed, n)
					}
					lane.mu.Unlock()
					time.Sleep(took)
				})
				time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
			}
			wg.Wait()
			wantEmpty(t, q)
		})
	}
}

func TestAtOnce(t *testing.T) {
	for text, want := range map[string]int{"": -1, "1": 1, "64": 64, "4096": 4096, "0": 0, "-3": 0, "4097": 0, "many": 0, "2.5": 0} {
		n, err := AtOnce(func(name string) string {
			if name != "LARK_CALLS_AT_ONCE" {
				t.Errorf("asked for %s", name)
			}
			return text
		})
		switch {
		case want == 0 && !errdefs.IsInvalidArgument(err):
			t.Errorf("%q: %d, %v", text, n, err)
		case want > 0 && (err != nil || n != want), want < 0 && (err != nil || n < perCPU):
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}
