package outbox

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	api "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/services/ttrpc/events/v1"
)

func note(kind Kind) Event {
	return Event{Kind: kind, Topic: "/tasks/x", Message: &api.TaskPaused{ContainerID: "c"}, Container: "c"}
}

// slow takes an event in the time that it is given, and from the n-th on none.
type slow struct {
	takes time.Duration
	n     int
	taken int
}

func (s *slow) Send(ctx context.Context, _ *events.ForwardRequest) error {
	took := time.After(s.takes)
	if s.taken == s.n {
		took = nil
	}
	select {
	case <-took:
		s.taken++
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slow) Close() error { return nil }

// F15: a containerd that takes events is waited for, however slowly it does, and one
// that takes none is not.
func TestF15DrainWhileMoving(t *testing.T) {
	const quiet, queued = 10 * time.Second, 200
	for name, c := range map[string]struct {
		transport slow
		lost      int
	}{
		"200 ms an event":   {slow{200 * time.Millisecond, queued, 0}, 0},
		"9 s an event":      {slow{9 * time.Second, queued, 0}, 0},
		"hangs at last":     {slow{200 * time.Millisecond, queued - 2, 0}, 2},
		"hangs from before": {slow{time.Millisecond, 0, 0}, queued},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := New(Config{Namespace: "ns", Transport: &c.transport})
				for range queued - 1 {
					o.Append(note(Note))
				}
				o.Append(note(Exit))
				begun := time.Now()
				err := o.DrainWhileMoving(quiet)
				if n := o.Stats().Queued; (err == nil) != (c.lost == 0) || n != c.lost {
					t.Errorf("%v, %d are queued, want %d", err, n, c.lost)
				}
				if took, most := time.Since(begun), time.Duration(c.transport.n)*c.transport.takes+2*quiet; took > most {
					t.Errorf("took %v, want at most %v", took, most)
				}
				o.Close()
			})
		})
	}
}

// F15: an outbox that is closed is not waited for.
func TestF15DrainEndsWithTheOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := New(Config{Namespace: "ns", Transport: &slow{time.Hour, 1, 0}})
		o.Append(note(Note))
		go func() { time.Sleep(time.Second); o.Close() }()
		begun := time.Now()
		if err := o.DrainWhileMoving(time.Minute); err == nil || time.Since(begun) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}
