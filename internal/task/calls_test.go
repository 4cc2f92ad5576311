package task

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/admission"
	"github.com/larkshim/lark/internal/order"
)

// narrow gives the shim a queue in which one call runs, and counts for ever.
func (s *shim) narrow() {
	s.calls = admission.New(slog.New(slog.DiscardHandler), admission.Limits{AtOnce: 1, Others: time.Hour, Own: time.Hour})
}

// occupy takes the only turn, as a call of that container that hangs.
func (s *shim) occupy(container string) *admission.Turn {
	s.t.Helper()
	turn, err := s.calls.Enter(s.t.Context(), container, admission.Work)
	if err != nil {
		s.t.Fatal(err)
	}
	return turn
}

// awaitWaiting waits until n calls are in the queue.
func (s *shim) awaitWaiting(n int) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); s.calls.Waiting(admission.Work) != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d calls wait, want %d", s.calls.Waiting(admission.Work), n)
		}
	}
}

// A call whose client goes away before its turn leaves everything as it was.
func TestF12ClientLeavesTheQueue(t *testing.T) {
	s := newShim(t)
	s.narrow()
	b := s.container(nil, "sleep", "3600")
	b.create()
	b.start("")
	if err := b.addExec("x", "true"); err != nil {
		t.Fatal(err)
	}
	other := s.container(nil, "true")
	turn := s.occupy(b.id)
	for name, call := range map[string]func(context.Context) error{
		"create": func(ctx context.Context) error { _, err := s.Create(ctx, other.request); return err },
		"start": func(ctx context.Context) error {
			_, err := s.Start(ctx, &task.StartRequest{ID: b.id, ExecID: "x"})
			return err
		},
		"pause": func(ctx context.Context) error { _, err := s.Pause(ctx, &task.PauseRequest{ID: b.id}); return err },
		"update": func(ctx context.Context) error {
			_, err := s.Update(ctx, &task.UpdateTaskRequest{ID: b.id, Resources: &anypb.Any{Value: []byte("{}")}})
			return err
		},
		"checkpoint": func(ctx context.Context) error {
			_, err := s.Checkpoint(ctx, &task.CheckpointTaskRequest{ID: b.id})
			return err
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		answer := make(chan error, 1)
		go func() { answer <- call(ctx) }()
		s.awaitWaiting(1)
		cancel()
		if err := <-answer; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want that it was cancelled", name, err)
		}
		s.awaitWaiting(0)
	}
	if _, err := s.State(t.Context(), &task.StateRequest{ID: other.id}); !errdefs.IsNotFound(err) {
		t.Errorf("the container of a client that has gone: %v", err)
	}
	turn.Leave()
	b.start("x")
	if status := b.wait("x"); status != 0 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("x")
	other.create()
	other.start("")
	other.wait("")
	other.mustDelete("")
}

// An exec that is deleted, and whose id is used again, while its start waits: what
// is started is what has the id when its turn comes.
func TestF12ExecIsAnotherWhenItsTurnComes(t *testing.T) {
	s := newShim(t)
	s.narrow()
	b := s.container(nil, "sleep", "3600")
	b.create()
	b.start("")
	if err := b.addExec("x", "false"); err != nil {
		t.Fatal(err)
	}
	turn := s.occupy(b.id)
	answer := make(chan error, 1)
	go func() {
		_, err := s.Start(t.Context(), &task.StartRequest{ID: b.id, ExecID: "x"})
		answer <- err
	}()
	s.awaitWaiting(1)
	b.mustDelete("x")
	if err := b.addExec("x", "sh", "-c", "exit 7"); err != nil {
		t.Fatal(err)
	}
	turn.Leave()
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if status := b.wait("x"); status != 7 {
		t.Errorf("status %d, want 7", status)
	}
	b.mustDelete("x")
	// An exec that is deleted before its start has no event for that, so that to
	// the checker of the order it was added twice.
	if err := s.outbox.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	s.events.checker = order.New()
	s.events.checker.Observe(s.events.events[0])
	s.events.checker.Observe(s.events.events[1])
}

// Calls that hang hold up neither the kill nor the delete of their own container,
// nor its thawing.
func TestF12TheEndDoesNotWait(t *testing.T) {
	s := newShim(t)
	s.narrow()
	b := s.container(nil, "sleep", "3600")
	b.create()
	b.start("")
	if _, err := s.Pause(t.Context(), &task.PauseRequest{ID: b.id}); err != nil {
		t.Fatal(err)
	}
	s.occupy(b.id)
	if _, err := s.Resume(t.Context(), &task.ResumeRequest{ID: b.id}); err != nil {
		t.Errorf("resume: %v", err)
	}
	if err := b.kill("", 9); err != nil {
		t.Errorf("kill: %v", err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("")
}

// A number of calls that cannot be read is told before anything is done.
func TestF12CallsAtOnceIsRead(t *testing.T) {
	t.Setenv("LARK_CALLS_AT_ONCE", "some")
	s := newShim(t)
	if _, err := s.Create(t.Context(), s.container(nil, "true").request); !errdefs.IsInvalidArgument(err) {
		t.Errorf("create: %v, want InvalidArgument", err)
	}
}
