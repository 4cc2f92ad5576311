package outbox

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	api "github.com/containerd/containerd/api/events"
)

// execEvents are what one exec brings.
func execEvents(id string) []Event {
	var all []Event
	for _, k := range []Kind{ExecAdded, ExecStarted, ExecExit} {
		all = append(all, Event{Kind: k, Topic: k.String(), Message: &api.TaskExit{ID: id}, Container: "c", Exec: id})
	}
	return all
}

// A burst of execs does not run ahead of a containerd that takes events, more slowly than they come: the queue stays
// short, nothing is dropped.
func TestPaceHoldsABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients, execs = 128, 50
		d := &daemon{}
		d.set(func(context.Context, string) error { time.Sleep(100 * time.Microsecond); return nil }) // virtual
		o := start(t, d)
		defer o.Close()
		var longest int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() {
				for e := range execs {
					o.Pace(t.Context())
					for _, ev := range execEvents(fmt.Sprint(c, "-", e)) {
						o.Append(ev)
					}
					mu.Lock()
					longest = max(longest, o.Stats().Queued)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if err := o.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(d.got()); got != 3*clients*execs {
			t.Errorf("%d events arrived, want %d", got, 3*clients*execs)
		}
		// All may come at once in the beginning, when nothing is queued yet.
		if longest > paceAt+3*clients {
			t.Errorf("%d events were queued", longest)
		}
	})
}

// Without Pace the same burst is dropped in part: it is Pace that the test above sees.
func TestBurstWithoutPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		d.set(func(context.Context, string) error { time.Sleep(100 * time.Microsecond); return nil })
		o := start(t, d)
		defer o.Close()
		for i := range MaxDroppable {
			for _, ev := range execEvents(fmt.Sprint(i)) {
				o.Append(ev)
			}
		}
		if s := o.Stats(); s.Queued != MaxDroppable && s.Queued != MaxDroppable+1 || len(s.Dropped) == 0 {
			t.Errorf("queued %d, dropped %v", s.Queued, s.Dropped)
		}
	})
}

// fill queues as many events as make Pace wait, the first of which is on its way.
func fill(o *Outbox) {
	for i := range paceAt + 1 {
		o.Append(exit(i))
	}
	synctest.Wait()
}

// A containerd that is away is not waited for; one that falls silent for as long as is known only after that time.
func TestPaceDoesNotWaitForTheSilent(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(context.Context, string) error
		first  time.Duration
	}{{"away", away, 0}, {"hung", hung, paceTime}} {
		synctest.Test(t, func(t *testing.T) {
			d := &daemon{}
			d.set(c.answer)
			o := start(t, d)
			defer o.Close()
			fill(o)
			for i, want := range []time.Duration{c.first, 0} {
				begun := time.Now()
				if o.Pace(t.Context()); time.Since(begun) != want {
					t.Errorf("%s: number %d waited %v, want %v", c.name, i, time.Since(begun), want)
				}
			}
			if len(o.paced) != 0 {
				t.Errorf("%s: %d still wait", c.name, len(o.paced))
			}
		})
	}
}

// Those who wait go when the queue is empty, though those before them have brought nothing.
func TestPaceLetsAllGoFromAnEmptyQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		d.set(func(context.Context, string) error { time.Sleep(100 * time.Microsecond); return nil })
		o := start(t, d)
		defer o.Close()
		for i := range paceAt + 10 {
			o.Append(exit(i))
		}
		begun := time.Now()
		var wg sync.WaitGroup
		for range 10 * paceAt {
			wg.Go(func() { o.Pace(t.Context()) })
		}
		wg.Wait()
		if waited := time.Since(begun); waited >= paceTime/2 {
			t.Errorf("the last waited %v, for a queue that was empty after 8 ms", waited)
		}
	})
}

// A caller that gives up, and one of an outbox that is closed, go at once.
func TestPaceEnds(t *testing.T) {
	for name, end := range map[string]func(o *Outbox, cancel func()){
		"cancelled": func(_ *Outbox, cancel func()) { cancel() },
		"closed":    func(o *Outbox, _ func()) { o.Close() },
	} {
		synctest.Test(t, func(t *testing.T) {
			d := &daemon{}
			o := start(t, d)
			defer o.Close()
			o.Append(exit(0))
			synctest.Wait()
			d.set(hung)
			fill(o)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begun := time.Now()
			gone := make(chan struct{})
			go func() { defer close(gone); o.Pace(ctx) }()
			synctest.Wait()
			if len(o.paced) != 1 {
				t.Fatalf("%s: %d wait", name, len(o.paced))
			}
			end(o, cancel)
			<-gone
			if waited := time.Since(begun); waited != 0 {
				t.Errorf("%s: waited %v", name, waited)
			}
		})
	}
}

// A containerd that is slow and takes events is waited for until the queue is
// short, for as long as it goes on, but not for ever.
func TestPaceWaitsForTheSlow(t *testing.T) {
	const each = paceTime / 2
	for _, c := range []struct {
		queued int
		want   time.Duration
	}{{paceAt + 10, 11 * each}, {10 * paceAt, paceLongest}} {
		synctest.Test(t, func(t *testing.T) {
			d := &daemon{}
			d.set(func(context.Context, string) error { time.Sleep(each); return nil })
			o := start(t, d)
			defer o.Close()
			for i := range c.queued {
				o.Append(exit(i))
			}
			begun := time.Now()
			o.Pace(t.Context())
			if waited := time.Since(begun); waited < c.want || waited > c.want+paceTime {
				t.Errorf("%d queued: waited %v, want %v", c.queued, waited, c.want)
			}
		})
	}
}
