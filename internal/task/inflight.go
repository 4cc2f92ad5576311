package task

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

var errBeingDeleted = fmt.Errorf("the container is being deleted: %w", errdefs.ErrFailedPrecondition)

// inFlight is the runtime calls of a container that a Delete does not wait for by
// the rules: Kill, Pause, Resume, Update and Checkpoint. The runtime knows a
// container by its id alone, so a call that outlives the Delete would reach the
// next container of that id. The Delete ends them first.
type inFlight struct {
	mu     sync.Mutex
	closed bool
	next   int
	cancel map[int]context.CancelFunc
	idle   chan struct{} // closed when closed and nothing is in flight
}

// begin enters a call. Its context ends when the container is to be deleted, with
// errBeingDeleted for its cause; the
// caller calls done when the runtime has answered. FailedPrecondition while the
// container is deleted.
func (f *inFlight) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, nil, errBeingDeleted
	}
	if f.cancel == nil {
		f.cancel = map[int]context.CancelFunc{}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	n := f.next
	f.next++
	f.cancel[n] = func() { cancel(errBeingDeleted) }
	return ctx, func() { f.end(n) }, nil
}

func (f *inFlight) end(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancel[n]()
	delete(f.cancel, n)
	if f.closed && len(f.cancel) == 0 {
		close(f.idle)
	}
}

// stop ends the calls in flight and lets no other begin. It waits for them, but not
// for one that cannot be killed; then it is false.
func (f *inFlight) stop() bool {
	f.mu.Lock()
	f.closed, f.idle = true, make(chan struct{})
	idle := f.idle
	for _, cancel := range f.cancel {
		cancel()
	}
	if len(f.cancel) == 0 {
		close(f.idle)
	}
	f.mu.Unlock()
	limit := time.NewTimer(reapTime)
	defer limit.Stop()
	select {
	case <-idle:
		return true
	case <-limit.C:
		return false
	}
}

// reopen lets calls begin again, after a Delete that failed.
func (f *inFlight) reopen() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = false
}
