package bootstrap

import (
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/larkshim/lark/internal/routine"
)

// idler gives memory back when the shim comes to rest: it spends most of its life
// waiting for one process, and a node has a hundred of it. Nothing of this runs while
// the shim rests; a call arms one timer, which finds out that it is over.
type idler struct {
	after func(time.Duration, func()) // time.AfterFunc
	now   func() time.Time
	give  func()
	busy  func() bool // a call that forks is running

	begun time.Time
	last  atomic.Int64 // when the last call ended, since begun
	// worth counts what has been left behind since memory was last given back.
	worth       atomic.Int64
	short, long atomic.Bool // a timer of restDelay, of restLong, is armed
}

func newIdler(busy func() bool, log *slog.Logger) *idler {
	return &idler{
		after: func(d time.Duration, fn func()) { routine.AfterFunc(nil, "memory at rest", d, fn) },
		now:   time.Now, begun: time.Now(), busy: busy, give: (&giver{log: log}).give,
	}
}

// called is told of the end of every call.
func (r *idler) called(method string) {
	worth := int64(1)
	if method == "Create" {
		worth = restWorth
	}
	r.last.Store(int64(r.now().Sub(r.begun)))
	if r.worth.Add(worth) >= restWorth {
		r.arm(&r.short, restDelay)
	} else {
		r.arm(&r.long, restLong)
	}
}

// arm arms a timer, unless it is.
func (r *idler) arm(armed *atomic.Bool, d time.Duration) {
	if armed.CompareAndSwap(false, true) {
		r.after(d, func() { r.look(armed, d) })
	}
}

// look gives back if there was rest for the time d, and else comes again when there may
// have been.
func (r *idler) look(armed *atomic.Bool, d time.Duration) {
	rested := r.now().Sub(r.begun) - time.Duration(r.last.Load())
	left := d - rested
	if left <= 0 && r.busy() { // on a machine that is full a runtime call may take so long
		left = d
	}
	if left > 0 && r.worth.Load() > 0 {
		r.after(left, func() { r.look(armed, d) })
		return
	}
	armed.Store(false) // a call that ends from now on arms again
	if r.worth.Swap(0) > 0 {
		r.give()
	}
}

// giver gives back to the kernel what this process can do without until the next call.
type giver struct {
	log    *slog.Logger
	cycles uint32
}

// give frees the heap, if it was ever collected since the last time or is so large that
// much of it must be garbage: a first collection costs more memory than it frees (0.4 MB
// of the collector's own, for 0.1 MB of what starting has left behind). The pages of the
// program's own file stay: they are shared with every other shim and the page cache, and
// those of a position-independent program are relocated when it is loaded, so that
// madvise(2) would bring back others.
func (g *giver) give() {
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.NumGC != g.cycles || m.HeapAlloc >= restHeap {
		debug.FreeOSMemory()
		g.cycles = m.NumGC + 1 // its own
	}
	g.log.Debug("memory was given back")
}
