package task

import (
	"context"
	"log/slog"
	"os"

	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/admission"
)

// calls.go: every call of the runtime has its turn in the admission queue.
//
// What a client begins (create, start, exec, restore, pause, update, checkpoint)
// is admitted by its handler, before the rules are asked: a client that goes away
// while it waits, or whose deadline ends, leaves everything as it was. What ends
// a container, or is asked for on the way there, is admitted call by call, in a
// lane of its own.

// newCalls makes the queue. A number that cannot be read is reported by Create.
func newCalls(log *slog.Logger) *admission.Queue {
	n, _ := admission.AtOnce(os.Getenv)
	return admission.New(log, admission.Limits{AtOnce: n})
}

// enter waits for a turn for a call that a client begins. The caller must Leave
// when it is over.
func (c *container) enter(ctx context.Context) (*admission.Turn, error) {
	return c.service.calls.Enter(ctx, c.id, admission.Work)
}

// urgent is a runtime whose calls that end a container wait for their turn.
type urgent struct {
	ociRuntime
	calls *admission.Queue
}

// during runs a call in its turn.
func (r urgent) during(ctx context.Context, id string, call func() error) error {
	turn, err := r.calls.Enter(ctx, id, admission.Urgent)
	if err != nil {
		return err
	}
	defer turn.Leave()
	return call()
}

func (r urgent) Kill(ctx context.Context, id string, sig unix.Signal, all bool) error {
	return r.during(ctx, id, func() error { return r.ociRuntime.Kill(ctx, id, sig, all) })
}

func (r urgent) Delete(ctx context.Context, id string, force bool) error {
	return r.during(ctx, id, func() error { return r.ociRuntime.Delete(ctx, id, force) })
}

func (r urgent) Clear(ctx context.Context, id string) error {
	return r.during(ctx, id, func() error { return r.ociRuntime.Clear(ctx, id) })
}

func (r urgent) Resume(ctx context.Context, id string) error {
	return r.during(ctx, id, func() error { return r.ociRuntime.Resume(ctx, id) })
}

func (r urgent) State(ctx context.Context, id string) (state *runc.Container, err error) {
	err = r.during(ctx, id, func() (err error) { state, err = r.ociRuntime.State(ctx, id); return err })
	return state, err
}
