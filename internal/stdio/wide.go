package stdio

// wide.go enlarges the pipes of a stream while it moves much: the fewer bytes a pipe
// holds, the more often writer, shim and reader have to wake each other for the same bytes.

import (
	"sync/atomic"
	"time"
)

// wideStreams is how many streams of this process have enlarged pipes. It is the
// process's and not an IO's, because what it bounds is counted by user: all pipes of root
// on the host count against pipe-user-pages-soft (pipe(7)), beyond which a container that
// has no CAP_SYS_RESOURCE gets pipes of two pages.
var wideStreams atomic.Int32

// wide is what a pump knows of its pipes' sizes.
type wide struct {
	streak int // bytes moved by splices that were each worth it, one after the other
	// What src and dst held before, in bytes; 0 for one that is not enlarged.
	src, dst int
}

// on says whether a pipe is enlarged, so that the stream counts in wideStreams.
func (w wide) on() bool { return w.src > 0 || w.dst > 0 }

// flows takes note of n bytes that were moved at once. After a good streak the pipes are
// enlarged, and they stay so for as long as such a move comes every wideRest.
func (p *pump) flows(n int) {
	if n < spliceWorth {
		p.wide.streak = 0
		return
	}
	p.wide.streak = min(p.wide.streak+n, wideWorth)
	if p.wide.streak < wideWorth {
		return
	}
	if !p.wide.on() && !p.widen() {
		p.wide.streak = 0
		return
	}
	// A pump waits for src in Go's poller, which wakes it then (see rested).
	_ = p.src.SetReadDeadline(time.Now().Add(wideRest))
}

// widen enlarges what is smaller. It is an improvement only: where it is refused, bytes go
// on as they did.
func (p *pump) widen() bool {
	if wideStreams.Add(1) > wideStreamsMax {
		wideStreams.Add(-1)
		return false
	}
	p.wide.src, p.wide.dst = p.enlarge(p.raw), p.enlarge(p.dst.raw)
	if !p.wide.on() {
		wideStreams.Add(-1)
	}
	return p.wide.on()
}

// enlarge returns what a pipe held before, 0 if it is as it was.
func (p *pump) enlarge(pipe rawControl) (before int) {
	_ = pipe.Control(func(fd uintptr) {
		size, err := p.k.pipeSize(int(fd))
		if err == nil && size < wideSize && p.k.setPipeSize(int(fd), wideSize) == nil {
			before = size
		}
	})
	return before
}

// rested is called when no good move came for wideRest. A pipe that cannot be made smaller,
// because its reader has left more in it than it then could hold, waits for the end of the
// next streak.
func (p *pump) rested() {
	_ = p.src.SetReadDeadline(time.Time{})
	p.wide.streak = 0
	was := p.wide.on()
	p.wide.src = p.restore(p.raw, p.wide.src)
	p.wide.dst = p.restore(p.dst.raw, p.wide.dst)
	if was && !p.wide.on() {
		wideStreams.Add(-1)
	}
}

// restore makes a pipe as small as it was, unless its other side has given it a size of its
// own meanwhile. It returns what is left to restore: 0, or before where that failed.
func (p *pump) restore(pipe rawControl, before int) (left int) {
	if before == 0 {
		return 0
	}
	// Of one that is closed, nothing is left.
	_ = pipe.Control(func(fd uintptr) {
		size, err := p.k.pipeSize(int(fd))
		if err != nil || size == wideSize && p.k.setPipeSize(int(fd), before) != nil {
			left = before
		}
	})
	return left
}

// leaveWide gives the stream's place to another, at its end: its pipes end with it.
func (p *pump) leaveWide() {
	if p.wide.on() {
		p.wide = wide{}
		wideStreams.Add(-1)
	}
}

// rawControl is the part of syscall.RawConn that never waits.
type rawControl interface{ Control(func(fd uintptr)) error }
