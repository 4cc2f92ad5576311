package admission

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/routine"
)

// Lane is a kind of call. Each has a queue of its own.
type Lane int

const (
	// Work is all that is not Urgent.
	Work Lane = iota
	// Urgent is the calls that end a container, and those that its end may need.
	Urgent
	lanes
)

// Queue admits calls. Its methods may be called from any goroutine.
type Queue struct{ lanes [lanes]lane }

// Limits says how many calls run.
type Limits struct {
	// AtOnce is how many calls run at once in each lane, at most.
	AtOnce int
	// Others and Own are how long a call counts for calls of other containers and
	// for those of its own. Zero is the default.
	Others, Own time.Duration
}

// New makes a queue.
func New(log *slog.Logger, limits Limits) *Queue {
	limits.AtOnce = max(limits.AtOnce, 1)
	if limits.Others == 0 {
		limits.Others = countsFor
	}
	if limits.Own == 0 {
		limits.Own = countsForOwn
	}
	q := &Queue{}
	for i := range q.lanes {
		q.lanes[i].log, q.lanes[i].limits, q.lanes[i].width = log, limits, min(narrow, limits.AtOnce)
	}
	return q
}

// Enter waits until a call of that container may run. The caller must Leave when
// the call is over. When ctx ends first the error wraps its cause, and
// ResourceExhausted says that too many calls wait already; then nothing is left
// of the call in the queue.
func (q *Queue) Enter(ctx context.Context, container string, l Lane) (*Turn, error) {
	t := &Turn{lane: &q.lanes[l], container: container, admitted: make(chan struct{})}
	if err := t.lane.enter(ctx, t); err != nil {
		return nil, err
	}
	came := time.Now()
	select {
	case <-t.admitted:
		return t, nil
	case <-ctx.Done():
		t.Leave()
		return nil, fmt.Errorf("a runtime call of container %q waited %v for its turn: %w",
			container, time.Since(came).Round(time.Millisecond), context.Cause(ctx))
	}
}

// Waiting returns how many calls wait in that lane.
func (q *Queue) Waiting(l Lane) int {
	q.lanes[l].mu.Lock()
	defer q.lanes[l].mu.Unlock()
	return q.lanes[l].waiting
}

// Turn is a call that waits, runs, or has left.
type Turn struct {
	lane      *lane
	container string
	admitted  chan struct{} // closed when the call may run
	since     time.Time     // of the admission; zero before
}

// Leave ends the call and admits others. Only the first Leave does anything.
func (t *Turn) Leave() {
	l := t.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.since.IsZero() {
		l.giveUp(t)
	} else if i := slices.Index(l.running, t); i >= 0 {
		l.running = slices.Delete(l.running, i, i+1)
		l.learn(time.Since(t.since))
	}
	l.admit()
}

// lane is one queue. A line has at least one call, and there is one line for each
// container that has calls waiting.
type lane struct {
	log    *slog.Logger
	limits Limits

	mu      sync.Mutex
	running []*Turn // in the order of their admission
	lines   []*line // the first is the next to be admitted from
	waiting int     // calls in all lines
	// width is how many calls run at once now; see learn.
	width int
	timer *time.Timer
}

// line is the waiting calls of one container, the first the next.
type line struct {
	container string
	turns     []*Turn
}

// enter puts a call at the end of its line, and admits it at once if it may run.
func (l *lane) enter(ctx context.Context, t *Turn) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting >= maxWaiting {
		return fmt.Errorf("%d runtime calls wait for their turn already: %w", l.waiting, errdefs.ErrResourceExhausted)
	}
	l.waiting++
	i := slices.IndexFunc(l.lines, func(n *line) bool { return n.container == t.container })
	if i < 0 {
		l.lines = append(l.lines, &line{container: t.container, turns: []*Turn{t}})
	} else {
		l.lines[i].turns = append(l.lines[i].turns, t)
	}
	l.admit()
	return nil
}

// giveUp takes a call that was not admitted out of its line, if it is there.
func (l *lane) giveUp(t *Turn) {
	for i, n := range l.lines {
		j := slices.Index(n.turns, t)
		if j < 0 {
			continue
		}
		l.waiting--
		if n.turns = slices.Delete(n.turns, j, j+1); len(n.turns) == 0 {
			l.lines = slices.Delete(l.lines, i, i+1)
		}
		return
	}
}

// learn adapts the width to what a call took. It begins narrow, and each call that
// was quick widens it by one: a burst doubles it in the time of a call. A call that
// was slow makes it narrow again: the runtime may serialise its calls, and the more
// of them run, the longer each takes.
func (l *lane) learn(took time.Duration) {
	if took < countsFor {
		l.width = min(l.width+1, l.limits.AtOnce)
	} else {
		l.width = min(narrow, l.limits.AtOnce)
	}
}

// admit lets calls run for as long as there is room for one. The caller holds mu.
func (l *lane) admit() {
	now := time.Now()
	for l.admitOne(now) {
	}
	l.wakeAt(now)
}

// admitOne admits the first call of the first line that has room. That line goes
// to the end: its container has had its turn.
func (l *lane) admitOne(now time.Time) bool {
	for i, n := range l.lines {
		if l.counted(n.container, now) >= l.width {
			continue
		}
		t := n.turns[0]
		n.turns = n.turns[1:]
		l.lines = slices.Delete(l.lines, i, i+1)
		if len(n.turns) > 0 {
			l.lines = append(l.lines, n)
		}
		l.waiting--
		t.since = now
		l.running = append(l.running, t)
		close(t.admitted)
		return true
	}
	return false
}

// counted is how many running calls count for a call of that container.
func (l *lane) counted(container string, now time.Time) (n int) {
	for _, t := range l.running {
		counts := l.limits.Others
		if t.container == container {
			counts = l.limits.Own
		}
		if now.Sub(t.since) < counts {
			n++
		}
	}
	return n
}

// wakeAt sets the timer to the moment when a running call no longer counts, if
// any call waits for that.
func (l *lane) wakeAt(now time.Time) {
	var next time.Duration
	if l.waiting > 0 {
		for _, t := range l.running {
			for _, limit := range []time.Duration{l.limits.Others, l.limits.Own} {
				if left := limit - now.Sub(t.since); left > 0 && (next == 0 || left < next) {
					next = left
				}
			}
		}
	}
	switch {
	case next == 0 && l.timer != nil:
		l.timer.Stop()
	case next == 0:
	case l.timer == nil:
		l.timer = routine.AfterFunc(l.log, "admission", next, l.tick)
	default:
		l.timer.Reset(next)
	}
}

func (l *lane) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.admit()
}
