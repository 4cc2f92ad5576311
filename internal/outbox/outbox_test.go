package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	api "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

// daemon is a containerd that fails as it is told. Safe for concurrent use.
type daemon struct {
	mu       sync.Mutex
	answer   func(ctx context.Context, topic string) error // nil: take it
	topics   []string
	attempts int
	last     *events.ForwardRequest
}

func (d *daemon) Send(ctx context.Context, req *events.ForwardRequest) error {
	d.mu.Lock()
	answer := d.answer
	d.attempts++
	d.last = req
	d.mu.Unlock()
	if answer != nil {
		if err := answer(ctx, req.Envelope.Topic); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.topics = append(d.topics, req.Envelope.Topic)
	return nil
}

func (d *daemon) Close() error { return nil }

func (d *daemon) set(answer func(context.Context, string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = answer
}

func (d *daemon) tries() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.attempts
}

func (d *daemon) got() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.topics...)
}

var errAway = errors.New("connect: no such file or directory")

func away(context.Context, string) error { return errAway }

func hung(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

func start(t testing.TB, d *daemon) *Outbox {
	t.Helper()
	return New(Config{Namespace: "ns", Transport: d})
}

func exit(i int) Event {
	return Event{Kind: Exit, Topic: fmt.Sprint(i), Message: &api.TaskExit{ContainerID: "c"}, Container: "c"}
}

func wantInOrder(t testing.TB, topics []string, n int) {
	t.Helper()
	if len(topics) != n {
		t.Fatalf("%d events arrived, want %d", len(topics), n)
	}
	for i, topic := range topics {
		if topic != fmt.Sprint(i) {
			t.Fatalf("event %q is number %d to arrive", topic, i)
		}
	}
}

func TestDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		o := start(t, d)
		defer o.Close()
		at := time.Now().Add(-time.Hour)
		o.Append(Event{Kind: Exit, Topic: "/tasks/exit", Message: &api.TaskExit{ContainerID: "c", ExitStatus: 3}, At: at, Container: "c"})
		if err := o.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		e := d.last.Envelope
		if e.Namespace != "ns" || e.Topic != "/tasks/exit" || !e.Timestamp.AsTime().Equal(at) || e.Event.TypeUrl != "containerd.events.TaskExit" {
			t.Errorf("envelope %v", e)
		}
		var m api.TaskExit
		if err := e.Event.UnmarshalTo(&m); err != nil || m.ExitStatus != 3 {
			t.Errorf("message %v, %v", &m, err)
		}
	})
}

// W8: a retried event is not overtaken, whatever fails and however often.
func TestOrderUnderRandomFailures(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		rate := rapid.IntRange(0, 95).Draw(rt, "percent of failures")
		n := rapid.IntRange(1, 60).Draw(rt, "events")
		synctest.Test(t, func(t *testing.T) {
			rng, pauses := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
			d := &daemon{}
			d.set(func(ctx context.Context, topic string) error {
				if rng.IntN(100) >= rate {
					return nil
				}
				switch rng.IntN(4) {
				case 0:
					return hung(ctx, topic)
				case 1:
					return fmt.Errorf("refused: %w", errdefs.ErrInvalidArgument)
				case 2:
					return fmt.Errorf("try later: %w", errdefs.ErrUnavailable)
				}
				return errAway
			})
			o := start(t, d)
			defer o.Close()
			for i := range n {
				o.Append(exit(i))
				if pauses.IntN(3) == 0 {
					time.Sleep(time.Duration(pauses.IntN(1000)) * time.Millisecond)
				}
			}
			if err := o.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantInOrder(t, d.got(), n)
		})
	})
}

// Row 51: an hour of outage with a hundred thousand events. Memory is bounded,
// no exit of an init is lost, order is kept, and every drop is counted.
func TestRow51OutageOfAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		d.set(away)
		var log bytes.Buffer
		o := New(Config{Namespace: "ns", Transport: d, Log: slog.New(slog.NewTextHandler(&log, nil))})
		defer o.Close()

		before := heap()
		const n = 100_000
		exits := 0
		for i := range n {
			e := Event{Kind: ExecAdded + Kind(i%3), Topic: fmt.Sprintf("x%d-%d", i/3, i%3), Container: "c", Exec: fmt.Sprint(i / 3), Message: &api.TaskExit{ContainerID: "c", ID: fmt.Sprint(i)}}
			if i%100 == 99 {
				e = exit(exits)
				e.Container = fmt.Sprint("c", exits)
				exits++
			}
			o.Append(e)
			if i%(n/3600) == 0 {
				time.Sleep(time.Second)
			}
		}
		if s := o.Stats(); s.Queued > MaxDroppable+exits+1 {
			t.Fatalf("%d events queued", s.Queued)
		}
		if grown := heap() - before; grown > 16<<20 {
			t.Errorf("the heap grew by %d bytes", grown)
		}
		if d.tries() > 4000 {
			t.Errorf("%d attempts in an hour", d.tries())
		}

		d.set(nil)
		if err := o.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, topic := range d.got() {
			if !strings.HasPrefix(topic, "x") {
				got = append(got, topic)
			}
		}
		wantInOrder(t, got, exits)
		var dropped uint64
		for _, n := range o.Stats().Dropped {
			dropped += n
		}
		if int(dropped)+len(d.got()) != n {
			t.Errorf("%d events dropped and %d delivered of %d", dropped, len(d.got()), n)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 {
			t.Errorf("an outage is to be logged when it begins and when it ends:\n%s", &log)
		}
	})
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Row 54: a containerd that takes the event and never answers is not asked again
// and again, and no Append waits for it.
func TestRow54HungDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		d.set(hung)
		o := start(t, d)
		defer o.Close()
		begun := time.Now()
		for i := range 2 * MaxDroppable {
			o.Append(exit(i))
		}
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("Append waited %v", waited)
		}
		time.Sleep(time.Hour)
		if d.tries() > 13 {
			t.Errorf("the same event was sent %d times in an hour", d.tries())
		}
		d.set(nil)
		if err := o.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantInOrder(t, d.got(), 2*MaxDroppable)
	})
}

func TestRow51RestartedDaemonIsFoundSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		d.set(away)
		o := start(t, d)
		defer o.Close()
		o.Append(exit(0))
		time.Sleep(10*time.Hour + 300*time.Millisecond)
		d.set(nil)
		back := time.Now()
		if err := o.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(back); took > maxBackoff {
			t.Errorf("found after %v", took)
		}
	})
}

// The first failure is followed by an attempt at once: that is what a connection
// to a restarted containerd costs.
func TestFirstRetryIsImmediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		failed := false
		d.set(func(context.Context, string) error {
			if !failed {
				failed = true
				return errAway
			}
			return nil
		})
		o := start(t, d)
		defer o.Close()
		begun := time.Now()
		o.Append(exit(0))
		if err := o.Drain(t.Context()); err != nil || time.Since(begun) != 0 {
			t.Errorf("drained after %v: %v", time.Since(begun), err)
		}
	})
}

// At rest nothing happens: no timer, no attempt.
func TestNoWakeUpsAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		o := start(t, d)
		o.Append(exit(0))
		time.Sleep(100 * time.Hour)
		if d.tries() != 1 {
			t.Errorf("%d attempts", d.tries())
		}
		o.Close()
	})
}

// W7: what was appended before the shutdown is delivered, within the deadline.
func TestDrain(t *testing.T) {
	for name, c := range map[string]struct {
		back time.Duration // when containerd comes back
		ok   bool
	}{"in time": {3 * time.Second, true}, "too late": {time.Minute, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &daemon{}
				d.set(away)
				o := start(t, d)
				defer o.Close()
				time.AfterFunc(c.back, func() { d.set(nil) })
				for i := range 10 {
					o.Append(exit(i))
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				begun := time.Now()
				err := o.Drain(ctx)
				if took := time.Since(begun); took > 10*time.Second {
					t.Errorf("Drain took %v", took)
				}
				if c.ok {
					if err != nil {
						t.Fatal(err)
					}
					wantInOrder(t, d.got(), 10)
				} else if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "10 events") {
					t.Errorf("Drain: %v", err)
				}
			})
		})
	}
}

func TestDrainOfAnEmptyOutbox(t *testing.T) {
	o := start(t, &daemon{})
	defer o.Close()
	if err := o.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// Close ends an attempt in progress, wakes who drains, and what comes later is
// counted and does not hang.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		d.set(hung)
		var log bytes.Buffer
		o := New(Config{Transport: d, Log: slog.New(slog.NewTextHandler(&log, nil))})
		o.Append(exit(0))
		drained := make(chan error, 1)
		go func() { drained <- o.Drain(context.Background()) }()
		synctest.Wait()
		o.Close()
		o.Close()
		if err := <-drained; !errdefs.IsUnavailable(err) {
			t.Errorf("Drain: %v", err)
		}
		o.Append(exit(1))
		if s := o.Stats(); s.Queued != 1 || s.Dropped[Exit] != 1 {
			t.Errorf("stats %+v", s)
		}
		if !strings.Contains(log.String(), "queued=1") {
			t.Errorf("the loss was not logged:\n%s", &log)
		}
	})
}

// What the server calls invalid is given up if it may be, and only then.
func TestInvalidEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		d.set(func(_ context.Context, topic string) error {
			if topic != "0" {
				return errdefs.ErrInvalidArgument
			}
			return nil
		})
		o := start(t, d)
		defer o.Close()
		for _, k := range []Kind{ExecAdded, ExecStarted, ExecExit} {
			o.Append(Event{Kind: k, Topic: k.String(), Container: "c", Exec: "x", Message: &api.TaskExit{}})
		}
		o.Append(exit(0))
		if err := o.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := o.Stats(); s.Dropped[ExecAdded] != 1 || s.Dropped[ExecStarted] != 1 || s.Dropped[ExecExit] != 1 {
			t.Errorf("dropped %v", s.Dropped)
		}
		if d.tries() != maxRefusals+1 {
			t.Errorf("%d attempts", d.tries())
		}

		o.Append(exit(1))
		time.Sleep(time.Hour)
		if s := o.Stats(); s.Queued != 1 || s.Dropped[Exit] != 0 {
			t.Errorf("an exit was given up: %+v", s)
		}
	})
}

// A message that cannot be encoded is the programmer's fault and nobody's outage.
func TestUnencodable(t *testing.T) {
	d := &daemon{}
	o := start(t, d)
	defer o.Close()
	o.Append(Event{Kind: Note, Topic: "bad", Message: &api.TaskPaused{ContainerID: "\xff"}})
	o.Append(exit(0))
	if err := o.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantInOrder(t, d.got(), 1)
	if s := o.Stats(); s.Dropped[Note] != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestConcurrentAppend(t *testing.T) {
	d := &daemon{}
	o := start(t, d)
	defer o.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				o.Append(exit(i))
			}
		})
	}
	wg.Wait()
	if err := o.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(d.got()); n != 4000 {
		t.Errorf("%d events arrived", n)
	}
}
