package bootstrap

import (
	"sync"
	"sync/atomic"
)

// turn is a condition that one goroutine waits for and others bring about.
type turn struct {
	mu      sync.Mutex
	called  chan struct{} // closed by the next call; nil while none waits
	waiting atomic.Bool   // called may be there
}

// call is made after each change that a goroutine may wait for.
func (t *turn) call() {
	if !t.waiting.Load() {
		return // the one that waits looks once more after having set it
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
