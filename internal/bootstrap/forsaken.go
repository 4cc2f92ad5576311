package bootstrap

import (
	"sync"
	"time"

	"github.com/larkshim/lark/internal/routine"
)

// forsaken ends a shim that nobody wants: one that containerd has started and died
// before it created a container in it, or whose last container was deleted by a daemon
// that did not come to say Shutdown (a timeout is enough). Both are there until the next
// reboot otherwise: containerd keeps no list of shims but its bundles.
//
// A daemon that lives holds a connection to every shim from just after its start until
// it has deleted the last task, however slow it is; and one that was restarted looks for
// shims by their bundles and takes an address where nobody listens for a dead shim, of
// which nothing is left to be kept, as there is no container. So what has no container
// and had no connection for the whole of the time is wanted by nobody.
//
// Nothing runs while somebody is connected: the timer is armed by the end of the last
// connection, or by the start. All methods may be called on nil.
type forsaken struct {
	after time.Duration
	// ask asks for the end. It is refused where there is a container, which must not
	// race one that is being created: the task service's Shutdown.
	ask func()

	mu       sync.Mutex
	visitors int
	timer    *time.Timer
}

// forsakenEnv sets the time, as Go spells durations; 0 lets such shims stay.
const forsakenEnv = "LARK_FORSAKEN_AFTER"

// forsakenTime reads it. What cannot be read is as good as nothing.
func forsakenTime(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return forsakenAfter
	}
	return d
}

func newForsaken(after time.Duration, ask func()) *forsaken {
	f := &forsaken{after: after, ask: ask}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.timer = routine.AfterFunc(nil, "end of a forsaken shim", after, f.look)
	return f
}

// come is called when a connection was accepted.
func (f *forsaken) come() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.visitors++
	f.timer.Stop()
}

// leave is called when it has ended.
func (f *forsaken) leave() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.visitors--; f.visitors == 0 {
		f.timer.Reset(f.after)
	}
}

// look is what the timer does. It may have fired while somebody came.
func (f *forsaken) look() {
	f.mu.Lock()
	alone := f.visitors == 0
	f.mu.Unlock()
	if alone {
		f.ask()
	}
}

// stop ends the watch; look may still be running.
func (f *forsaken) stop() { f.timer.Stop() }
