package soak

// One wave: its containers are all made, then all live at once, then nothing of
// them is left.

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/internal/order"
)

// wave is one of them.
type wave struct {
	plan  wavePlan
	seed  uint64
	boxes []*box
}

func (s *soak) runWave(ctx context.Context, n int) {
	w := &wave{plan: planWave(s.cfg.Seed, n, s.cfg.Most, s.cfg.Chance), seed: s.cfg.Seed + uint64(n)<<32}
	for i, p := range w.plan.boxes {
		id := fmt.Sprintf("w%d-%d", n, i)
		group := map[place]string{inPod: podID, inMate: fmt.Sprintf("mate%d", n), alone: id}[p.place]
		w.boxes = append(w.boxes, s.newBox(id, group, p))
	}
	s.most = max(s.most, len(w.boxes))
	side(w.boxes, func(_ int, b *box) { b.create(ctx) })
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		s.sabotage(ctx, over, w)
	}()
	side(w.boxes, func(i int, b *box) {
		b.live(ctx, w.seed+uint64(i))
	})
	close(over)
	<-done
	s.settle(ctx)
	s.starved(w)
	s.close()
	if s.cfg.Forgetful {
		s.leak(ctx, n)
	}
}

// starved looks whether each death for want of memory was told. That it was told
// before the exit is the checker's business; a wait may be answered before either
// has arrived, since events and answers go different ways.
func (s *soak) starved(w *wave) {
	for _, b := range w.boxes {
		if b.plan.hungry && b.made && !b.over() && !s.struck(b.id) {
			s.problem("%s was killed for want of memory, and that was not told", b.id)
		}
	}
}

// side does what is to be done with each box, some at a time.
func side(boxes []*box, do func(int, *box)) {
	var all sync.WaitGroup
	next := make(chan int)
	for range workers {
		all.Go(func() {
			for i := range next {
				do(i, boxes[i])
			}
		})
	}
	for i := range boxes {
		next <- i
	}
	close(next)
	all.Wait()
}

// settle waits until all has been told that must be, and nothing is left but
// what was there before the wave; it notes what is.
func (s *soak) settle(ctx context.Context, more ...*order.Checker) {
	ctx, cancel := context.WithTimeout(ctx, settleBound)
	defer cancel()
	for len(s.pending(more)) > 0 && ctx.Err() == nil {
		s.sleep(ctx, poll)
	}
	left := s.left()
	for len(left) > 0 && ctx.Err() == nil {
		s.sleep(ctx, poll)
		left = s.left()
	}
	for _, l := range left {
		s.problem("left over: %s", l)
		s.base = append(s.base, l) // told once
	}
}

// left names what belongs to the daemon and did not before.
func (s *soak) left() []string {
	return slices.DeleteFunc(s.d.Leftovers(), func(l string) bool {
		return slices.ContainsFunc(s.base, func(b string) bool { return identity(b) == identity(l) })
	})
}

// identity is what stays of a leftover's name. A process that the runtime has just
// started is called as the runtime for a moment, and then executes what it is to be.
func identity(leftover string) string {
	who, _, _ := strings.Cut(leftover, ": [")
	return who
}

// pending names what the living shims have still to tell of the wave, and of what
// more judges.
func (s *soak) pending(more []*order.Checker) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for group, check := range s.checks {
		if !s.lost[group] {
			more = append(more, check)
		}
	}
	var names []string
	for _, check := range more {
		names = append(names, check.Pending()...)
	}
	return names
}

// leak leaves an exec running in the pod, with a named pipe for its output.
func (s *soak) leak(ctx context.Context, n int) {
	exec := fmt.Sprintf("leak%d", n)
	f, err := openPipe(filepath.Join(s.dir, exec))
	if err != nil {
		s.problem("a named pipe for %s: %v", exec, err)
		return
	}
	s.call(ctx, s.pod, "exec of "+exec, nil, func(ctx context.Context) error {
		return s.c.Exec(ctx, podID, exec, daemon.Process(forever...), daemon.Stdio{Stdout: f.path})
	})
	s.pod.start(ctx, exec, nil)
	s.base = s.d.Leftovers()
}

// close judges the wave as a whole and forgets it, so that a soak of hours does
// not grow itself. The pod's own checker goes on.
func (s *soak) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, group := range slices.Sorted(maps.Keys(s.checks)) {
		s.finish(group, s.checks[group])
	}
	s.nextWave()
}

// finish takes a shim's checker in. Of a shim that was killed nothing is missed.
func (s *soak) finish(group string, check *order.Checker) {
	for _, v := range check.Finish() {
		if v.Index >= 0 || !s.lost[group] {
			s.found = append(s.found, v)
		}
	}
	n := check.Counts()
	s.counts.Containers += n.Containers
	s.counts.Execs += n.Execs
	s.counts.Exits += n.Exits
	s.counts.Events += n.Events
}

// nextWave begins a wave with nothing known. The caller holds mu, or is alone.
func (s *soak) nextWave() {
	s.groups, s.checks, s.lost = map[string]string{podID: podID}, map[string]*order.Checker{}, map[string]bool{}
	s.ends, s.oom = map[string]*order.Event{}, map[string]bool{}
}
