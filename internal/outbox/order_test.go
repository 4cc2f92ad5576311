package outbox

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// turnstile is an answer that takes an event for each value received.
func turnstile() (chan struct{}, func(context.Context, string) error) {
	take := make(chan struct{})
	return take, func(ctx context.Context, _ string) error {
		select {
		case <-take:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// An Append reaches an outbox that rests.
func TestAppendWakesARestingOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		o := start(t, d)
		defer o.Close()
		for i := range 3 {
			synctest.Wait()
			o.Append(exit(i))
			synctest.Wait()
			wantInOrder(t, d.got(), i+1)
		}
	})
}

// An Append at any moment around the end of the event before it is sent.
func TestNoWakeUpIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		d.set(func(context.Context, string) error { time.Sleep(time.Millisecond); return nil })
		o := start(t, d)
		defer o.Close()
		n := 0
		for pause := range 30 {
			for range 2 {
				o.Append(exit(n))
				n++
				time.Sleep(time.Duration(pause) * 100 * time.Microsecond)
			}
			time.Sleep(time.Second)
			wantInOrder(t, d.got(), n)
		}
	})
}

// Drain waits for the event that is on its way, the last one too.
func TestDrainWaitsForTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		take, answer := turnstile()
		d.set(answer)
		o := start(t, d)
		defer o.Close()
		o.Append(exit(0))
		synctest.Wait()
		drained := make(chan error, 1)
		go func() { drained <- o.Drain(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-drained:
			t.Fatalf("Drain returned %v with an event on its way", err)
		default:
		}
		take <- struct{}{}
		if err := <-drained; err != nil {
			t.Fatal(err)
		}
		wantInOrder(t, d.got(), 1)
	})
}

// Callers of Pace go on in the order in which they came, one for each event that
// leaves a short queue. A caller that comes when the queue is short does not
// overtake those that wait.
func TestPaceIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		take, answer := turnstile()
		d.set(answer)
		o := start(t, d)
		defer o.Close()
		fill(o)
		var gone []string
		pace := func(name string) {
			go func() { o.Pace(t.Context()); gone = append(gone, name) }()
			synctest.Wait()
		}
		step := func(want ...string) {
			t.Helper()
			take <- struct{}{}
			synctest.Wait()
			if !slices.Equal(gone, want) {
				t.Fatalf("%v went on, want %v", gone, want)
			}
		}
		pace("a")
		pace("b")
		step() // paceAt are left
		step("a")
		pace("c")
		if len(gone) != 1 {
			t.Fatalf("%v went on, c has overtaken b", gone)
		}
		step("a", "b")
		step("a", "b", "c")
		d.set(nil)
		close(take)
	})
}

// Of two execs that containerd has heard of, the one whose event is the next to
// be sent is dropped: what is told of it ends earliest.
func TestQueueDropsTheHeardExecThatIsNext(t *testing.T) {
	q := newQueue(3)
	push := func(k Kind, exec string) {
		q.push(k, execKey{"c", exec}, &payload{topic: exec + " " + k.String()})
	}
	push(ExecAdded, "x")
	push(ExecStarted, "x")
	push(ExecStarted, "y") // of y, containerd has heard before
	q.next()               // x is heard of from now on
	push(ExecStarted, "z")
	push(ExecExit, "z") // one too many
	var got []string
	for e := q.next(); e != nil; e = q.next() {
		got = append(got, e.payload.topic)
		q.done()
	}
	if want := []string{"x exec-added", "y exec-started", "z exec-started", "z exec-exit"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// An exec's id that is used again is a new story, though the rest of the old one
// is still to be dropped.
func TestQueueUsesAnIdAgain(t *testing.T) {
	q := newQueue(2)
	x := execKey{"c", "x"}
	q.push(ExecAdded, x, &payload{topic: "old"})
	for i := range 2 {
		q.push(OOM, execKey{container: "c"}, &payload{topic: fmt.Sprint(i)})
	}
	if q.dropped[ExecAdded] != 1 {
		t.Fatalf("dropped %v, want the exec", q.dropped)
	}
	for range 2 {
		q.next()
		q.done()
	}
	q.push(ExecAdded, x, &payload{topic: "new"})
	if e := q.next(); e == nil || e.payload.topic != "new" {
		t.Errorf("the second exec of this id was dropped")
	}
}
