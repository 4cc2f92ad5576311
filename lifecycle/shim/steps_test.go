package shim

import (
	"fmt"
	"slices"
	"strings"
)

// What a move of the search does to the world, and what it must not do.

func (s *search) create(w *world, id ID, c Conn) {
	w.asked = false
	if s.step(w, Event{Kind: CreateAsked, ID: id, Conn: c}) == nil {
		w.slots[id] = slot{here: true, creating: true, caller: c, alive: false, bundle: true}
		w.used()
	} else if !w.ended {
		s.fail("refuses a create", fmt.Sprint(id))
	}
}

func (s *search) leave(w *world, c int) {
	w.open[c] = false
	for i := range w.slots {
		if sl := &w.slots[i]; sl.creating && sl.caller == Conn(c+1) {
			sl.lost = true
		}
	}
	_ = s.step(w, Event{Kind: Closed, Conn: Conn(c + 1)})
	s.judgeAsked(w)
}

func (s *search) made(w *world, id ID) {
	sl := &w.slots[id]
	sl.creating, sl.alive = false, true
	forgotten := sl.lost
	if !forgotten {
		w.asked = false
	}
	_ = s.step(w, Event{Kind: Made, ID: id})
	if forgotten && !sl.removing {
		s.fail("keeps a forgotten create", fmt.Sprint(id))
	}
	sl.caller, sl.lost = 0, false
	w.forgetAsked()
}

func (s *search) gone(w *world, id ID) {
	w.slots[id] = slot{removing: w.slots[id].removing, retry: w.slots[id].retry}
	_ = s.step(w, Event{Kind: Gone, ID: id})
	w.forgetAsked()
	s.judgeAsked(w)
}

// forgetAsked forgets the Shutdown when there is a container that no create is in
// flight of.
func (w *world) forgetAsked() {
	flight, here := false, false
	for i, sl := range w.slots {
		st := w.machine.State(ID(i))
		flight = flight || sl.here && (sl.creating || st == Removing || st == Stuck)
		here = here || sl.here
	}
	w.asked = w.asked && (flight || !here)
}

func (s *search) shutdown(w *world) {
	here, flight := false, false
	for i, sl := range w.slots {
		here = here || sl.here
		flight = flight || sl.here && w.machine.State(ID(i)) != There
	}
	w.asked = w.asked || flight
	_ = s.step(w, Event{Kind: ShutdownAsked})
	if !here && !w.ended {
		s.fail("Shutdown of nothing does not end", "")
	}
}

// judgeAsked: a Shutdown that was remembered ends the shim as soon as nothing is
// left and no client there.
func (s *search) judgeAsked(w *world) {
	for _, sl := range w.slots {
		if sl.here {
			return
		}
	}
	if w.asked && !w.anyOpen() && !w.ended {
		s.fail("a remembered Shutdown is lost", "")
	}
}

func (w *world) takeLook(n int) {
	l := &w.looks[n]
	l.taken, l.stale = true, w.anyOpen()
	for i, sl := range w.slots {
		l.orphans[i] = sl.here && !sl.creating && !sl.alive && !sl.bundle
	}
}

func (s *search) looked(w *world, n int) {
	l := w.looks[n]
	ev := Event{Kind: Looked, Watch: l.watch}
	for i, o := range l.orphans {
		if o {
			ev.Orphans = append(ev.Orphans, ID(i))
		}
	}
	_ = s.step(w, ev)
	w.looks = slices.Delete(w.looks, n, n+1)
	for i, sl := range w.slots {
		if sl.here && w.machine.State(ID(i)) == Absent {
			s.fail("forgets a container", fmt.Sprint(i))
		}
	}
}

// orphan lets clients leave, inits die and bundles go, brings to an end all that is
// begun, well or badly, and says whether the shim ends.
func (s *search) orphan(w *world, well bool) bool {
	known := s.ends[0]
	if well {
		known = s.ends[1]
	}
	var way []string
	for range 200 {
		k := w.key()
		if w.ended || known[k] {
			for _, k := range way {
				known[k] = true
			}
			return true
		}
		way = append(way, k)
		var next *move
		rank := 100
		for _, m := range moves(w) {
			if r := orphanRank(m.name, well); r < rank {
				next, rank = &m, r
			}
		}
		if next == nil {
			return false
		}
		next.do(s, w)
	}
	return false
}

func orphanRank(name string, well bool) int {
	for i, part := range []string{"leaves", "dies", "is made", "bundle", "is removed", "removal", "taken", "told", "watch is over", "pause"} {
		if strings.Contains(name, part) && (well || part != "is removed") {
			return i
		}
	}
	return 1000
}
