package soak

// One call to a containerd that may be killed under it.

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// up is which containerd is there: its number counts restarts.
type up struct {
	mu     sync.Mutex
	number int
	ready  chan struct{} // closed while one serves
}

func newUp() *up {
	u := &up{ready: make(chan struct{})}
	close(u.ready)
	return u
}

// down is called before containerd is killed.
func (u *up) down() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.number++
	u.ready = make(chan struct{})
}

// again is called when it serves.
func (u *up) again() {
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.ready)
}

// current is the number of the containerd that was started last.
func (u *up) current() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.number
}

// wait waits until one serves and gives its number.
func (u *up) wait(ctx context.Context) (int, error) {
	u.mu.Lock()
	ready, number := u.ready, u.number
	u.mu.Unlock()
	select {
	case <-ready:
		return number, nil
	case <-ctx.Done():
		return number, ctx.Err()
	}
}

// outcome is how a call went.
type outcome struct {
	ok bool
	// sure: the answer is that of the only attempt. Otherwise an earlier one was cut
	// off by the death of containerd, and may have had its effect.
	sure bool
	// answered: the shim's answer came, be it a refusal.
	answered bool
	err      error
}

// call makes a call about b, again and again while containerd dies under it.
// fine says which errors are in order; b may be nil.
func (s *soak) call(ctx context.Context, b *box, what string, fine func(o outcome) bool, f func(context.Context) error) outcome {
	o := outcome{sure: true}
	for {
		number, err := s.up.wait(ctx)
		if err != nil {
			return outcome{err: err}
		}
		began := time.Now()
		attempt, cancel := context.WithTimeout(ctx, s.cfg.Bound)
		o.err = f(attempt)
		hung := attempt.Err() != nil
		cancel()
		o.ok, o.answered = o.err == nil, o.err == nil
		switch {
		case o.ok || b != nil && b.lost.Load() || ctx.Err() != nil:
			return o
		case s.up.current() != number && broken(o.err):
			o.sure = false
			continue
		case hung:
			s.problem("%s hung: no answer in %v", what, time.Since(began).Round(time.Second))
			return o
		case broken(o.err):
			s.problem("%s: %v (after %v)", what, o.err, time.Since(began).Round(time.Millisecond))
			return o
		}
		o.answered = true
		if b != nil && b.cleared(ctx, number, o.err) {
			b.gone.Store(true)
			return o
		}
		if fine == nil || !fine(o) {
			s.problem("%s: %v", what, o.err)
		}
		return o
	}
}

// broken says that an error is of the way to the shim, and none of its answers.
func broken(err error) bool {
	return errdefs.IsDeadlineExceeded(err) || errdefs.IsCanceled(err) || errdefs.IsUnavailable(err) || strings.Contains(err.Error(), "ttrpc: closed")
}

// cleared says whether the containerd of that number has cleared the task away by
// itself: from 1.7 on it deletes, when it starts, every task without a process. That
// a process is not found says nothing yet, it may only have ended.
func (b *box) cleared(ctx context.Context, number int, err error) bool {
	if !b.ending.Load() || number == b.number || !errdefs.IsNotFound(err) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, b.s.cfg.Bound)
	defer cancel()
	_, err = b.s.c.Status(ctx, b.id, "")
	return err != nil && errdefs.IsNotFound(err)
}
