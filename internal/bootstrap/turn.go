package bootstrap

import (
	"sync"
	"sync/atomic"
)

// turn is where somebody waits for what others bring about.
type turn struct {
	mu      sync.Mutex
	called  chan struct{} // closed by the next call; nil while nobody waits
	waiting atomic.Bool   // called may be there
}

// call is made after each change that somebody may wait for.
func (t *turn) call() {
	if !t.waiting.Load() {
		return // who waits looks once more after having set it
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting.Store(false)
	if t.called != nil {
		close(t.called)
		t.called = nil
	}
}

// await returns when done says so, or all is over.
func (t *turn) await(over <-chan struct{}, done func() bool) {
	for !done() {
		t.mu.Lock()
		if t.called == nil {
			t.called = make(chan struct{})
		}
		called := t.called
		t.waiting.Store(true)
		t.mu.Unlock()
		if done() {
			return
		}
		select {
		case <-over:
			return
		case <-called:
		}
	}
}
