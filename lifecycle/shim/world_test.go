package shim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The search: two containers, two clients, and all that the world can do, breadth first
// to exhaustion. The world is the truth; the machine is told of it.

const (
	slots   = 2
	clients = 2
	// maxWatch bounds the numbers of watches, which only tell one from another.
	maxLooks = 1 // that are under way at once
)

// slot is one container as it really is.
type slot struct {
	here     bool // it was asked for and has not gone
	creating bool
	caller   Conn // of the create
	alive    bool // its init
	bundle   bool // its bundle is there
	removing bool // Remove is under way
	retry    bool // Retry is
	lost     bool // the caller left while it was being created
}

// look is a watch that is over: what was seen, and when.
type look struct {
	watch   uint64
	orphans [slots]bool
	taken   bool
	stale   bool // since it was taken a container was made, or a client came
}

// world is all of it. It is comparable by key.
type world struct {
	slots [slots]slot
	open  [clients]bool
	// asked: a Shutdown came while a create was in flight, nothing was asked since.
	asked   bool
	clients int // how many of them there are
	// timer is the watch that is on; zero if none.
	timer uint64
	looks []look
	ended bool

	machine *Machine
}

func (w *world) clone() *world {
	c := *w
	c.looks = slices.Clone(w.looks)
	m := *w.machine
	m.containers = map[ID]*container{}
	for id, k := range w.machine.containers {
		v := *k
		m.containers[id] = &v
	}
	m.conns = map[Conn]struct{}{}
	for k := range w.machine.conns {
		m.conns[k] = struct{}{}
	}
	m.out = nil
	c.machine = &m
	return &c
}

// key is the state, with the watches numbered from the present one.
func (w *world) key() string {
	var b strings.Builder
	for i := range w.slots {
		fmt.Fprintf(&b, "%v %d|", w.slots[i], w.machine.State(ID(i)))
		if c := w.machine.containers[ID(i)]; c != nil {
			fmt.Fprintf(&b, "%d|", c.conn)
		}
	}
	m := w.machine
	fmt.Fprintf(&b, "%v %v %v %v %v %v %v %d %d|", w.open, w.asked, w.ended, m.asked, m.ended, m.watching, w.timer == m.watch, m.looks, len(m.conns))
	for _, l := range w.looks {
		fmt.Fprintf(&b, "%v %v %v %v|", l.watch == m.watch, l.orphans, l.taken, l.stale)
	}
	return b.String()
}

// violation is a broken promise.
type violation struct{ rule, text string }

// search steps worlds with one set of rules.
type search struct {
	rules *rules
	bad   *violation
	// ends are worlds of which orphan has found that the shim ends, when removals go
	// badly and when they go well.
	ends [2]map[string]bool
}

func (s *search) fail(rule, text string) {
	if s.bad == nil {
		s.bad = &violation{rule, text}
	}
}

func (s *search) begin() *world {
	m, effects := New()
	m.rules = s.rules
	w := &world{machine: m}
	s.perform(w, Event{Kind: numKinds}, effects)
	return w
}

// step tells the machine and carries the effects out.
func (s *search) step(w *world, ev Event) error {
	effects, err := w.machine.Step(ev)
	if err != nil {
		if errors.Is(err, ErrContract) {
			s.fail("contract", fmt.Sprintf("%+v: %v", ev, err))
		}
		return err
	}
	s.perform(w, ev, effects)
	return nil
}

func (s *search) perform(w *world, ev Event, effects []Effect) {
	for _, e := range effects {
		if w.ended {
			s.fail("after the end", fmt.Sprintf("%+v", e))
		}
		switch e.Kind {
		case Remove:
			sl := &w.slots[e.ID]
			forgotten := sl.caller != 0 && !sl.creating && ev.Kind == Made && sl.lost
			retried := ev.Kind == Again
			orphan := ev.Kind == Looked && !sl.alive && !sl.bundle && !sl.creating && !w.anyOpen()
			if !sl.here || !forgotten && !retried && !orphan {
				s.fail("removes what is wanted", fmt.Sprintf("%d after %+v", e.ID, ev))
			}
			if ev.Kind == Looked && w.current(ev).stale {
				s.fail("old look", fmt.Sprintf("%d is removed", e.ID))
			}
			sl.removing = true
		case Retry:
			w.slots[e.ID].retry = true
		case Watch, WatchSoon:
			w.timer = e.Watch
		case Unwatch:
			w.timer = 0
		case End:
			s.judgeEnd(w, ev)
			w.ended, w.timer = true, 0
		default:
			s.fail("effect", fmt.Sprintf("%+v", e))
		}
	}
}

func (w *world) anyOpen() bool { return slices.Contains(w.open[:], true) }

func (w *world) current(ev Event) look {
	for _, l := range w.looks {
		if l.watch == ev.Watch {
			return l
		}
	}
	return look{}
}

// judgeEnd says whether the shim may end.
func (s *search) judgeEnd(w *world, ev Event) {
	any := false
	for i, sl := range w.slots {
		any = any || sl.here
		switch {
		case sl.here && sl.creating:
			s.fail("ends over a create", fmt.Sprint(i))
		case sl.here && sl.alive:
			s.fail("ends over a live container", fmt.Sprint(i))
		case sl.here && sl.bundle:
			s.fail("ends over a container that can be asked for", fmt.Sprint(i))
		}
	}
	if any && ev.Kind != Looked {
		s.fail("ends over a container", fmt.Sprintf("%+v", ev))
	}
	if w.anyOpen() && ev.Kind != ShutdownAsked {
		s.fail("ends before a client's eyes", fmt.Sprintf("%+v", ev))
	}
	if ev.Kind == Looked && w.current(ev).stale {
		s.fail("old look", "it ends the shim")
	}
	if ev.Kind != ShutdownAsked && ev.Kind != Looked && !w.asked {
		s.fail("ends unasked", fmt.Sprintf("%+v", ev))
	}
}

// move is one thing that may happen.
type move struct {
	name string
	do   func(s *search, w *world)
}

// used notes that what was seen before is old.
func (w *world) used() {
	for i := range w.looks {
		w.looks[i].stale = true
	}
}

// moves are all that may happen in a world.
func moves(w *world) (all []move) {
	add := func(do func(s *search, w *world), name string, args ...any) {
		all = append(all, move{fmt.Sprintf(name, args...), do})
	}
	if w.ended {
		return nil
	}
	for i := range w.slots {
		sl, id := w.slots[i], ID(i)
		switch {
		case !sl.here && !sl.removing && !sl.retry:
			for c := range w.clients {
				if w.open[c] {
					add(func(s *search, w *world) { s.create(w, id, Conn(c+1)) }, "client %d asks for %d", c, i)
				}
			}
		case sl.here && sl.creating:
			add(func(s *search, w *world) { s.made(w, id) }, "%d is made", i)
			add(func(s *search, w *world) { s.gone(w, id) }, "the create of %d fails", i)
		case sl.here:
			if sl.alive {
				add(func(s *search, w *world) { w.slots[i].alive = false }, "the init of %d dies", i)
			}
			if sl.bundle {
				add(func(s *search, w *world) { w.slots[i].bundle = false }, "the bundle of %d goes", i)
			}
			if !sl.alive && w.anyOpen() {
				add(func(s *search, w *world) { s.gone(w, id) }, "a client deletes %d", i)
			}
		}
		if sl.removing {
			if sl.here {
				add(func(s *search, w *world) { w.slots[i].removing = false; s.gone(w, id) }, "%d is removed", i)
			}
			add(func(s *search, w *world) {
				w.slots[i].removing = false
				_ = s.step(w, Event{Kind: RemoveFailed, ID: id})
				if w.slots[i].here && !w.slots[i].retry {
					s.fail("never undone", fmt.Sprint(id))
				}
			}, "the removal of %d fails", i)
			if sl.alive {
				add(func(s *search, w *world) {
					w.slots[i].removing, w.asked = false, false
					_ = s.step(w, Event{Kind: Used, ID: id})
					if w.slots[i].retry {
						s.fail("removes what is used", fmt.Sprint(id))
					}
				}, "%d was started", i)
			}
		}
		if sl.retry {
			add(func(s *search, w *world) {
				w.slots[i].retry = false
				_ = s.step(w, Event{Kind: Again, ID: id})
			}, "the pause of %d is over", i)
		}
	}
	for c := range w.clients {
		if !w.open[c] {
			add(func(s *search, w *world) {
				w.open[c] = true
				w.used()
				_ = s.step(w, Event{Kind: Opened, Conn: Conn(c + 1)})
			}, "client %d connects", c)
			continue
		}
		add(func(s *search, w *world) { s.leave(w, c) }, "client %d leaves", c)
		add(func(s *search, w *world) { s.shutdown(w) }, "client %d says Shutdown", c)
	}
	if w.timer != 0 && len(w.looks) < maxLooks {
		add(func(s *search, w *world) {
			w.looks = append(w.looks, look{watch: w.timer})
			w.timer = 0
		}, "the watch is over")
	}
	for n, l := range w.looks {
		if !l.taken {
			add(func(s *search, w *world) { w.takeLook(n) }, "look %d is taken", n)
		} else {
			add(func(s *search, w *world) { s.looked(w, n) }, "look %d is told", n)
		}
	}
	return all
}
