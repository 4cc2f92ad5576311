package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// graph is what a search has seen.
type graph struct {
	search *search
	states []world
	index  map[world]uint32
	// cameFrom and cameBy lead back to the beginning on a shortest way.
	cameFrom []uint32
	// edges of state i are edges[first[i]:first[i+1]], those of steps that must
	// happen with mustBit set. Those that lead back to the same state are left out.
	edges []uint32
	first []uint32
	// transitions counts every step taken, those that change nothing too.
	transitions int
	took        time.Duration

	bad   *violation
	badAt uint32
	// badBy is the step that broke the promise.
	badBy step
}

const mustBit = 1 << 31

// explore searches breadth first from a container that nothing was asked of, to
// exhaustion or to the first broken promise. keep keeps the edges.
func explore(s *search, keep bool) *graph {
	g := &graph{search: s, index: map[world]uint32{}}
	began := time.Now()
	g.add(world{}, 0)
	var buf []step
	for at := 0; at < len(g.states); at++ {
		if keep {
			g.first = append(g.first, uint32(len(g.edges)))
		}
		from := g.states[at]
		buf = from.steps(buf, s.execs)
		for _, st := range buf {
			g.transitions++
			to, bad := s.take(&from, st)
			if bad != nil {
				g.bad, g.badAt, g.badBy = bad, uint32(at), st
				g.took = time.Since(began)
				return g
			}
			if to == from {
				continue
			}
			i := g.add(to, uint32(at))
			if keep {
				if st.must {
					i |= mustBit
				}
				g.edges = append(g.edges, i)
			}
		}
	}
	if keep {
		g.first = append(g.first, uint32(len(g.edges)))
	}
	g.took = time.Since(began)
	return g
}

func (g *graph) add(w world, from uint32) uint32 {
	if i, ok := g.index[w]; ok {
		return i
	}
	i := uint32(len(g.states))
	g.index[w] = i
	g.states = append(g.states, w)
	g.cameFrom = append(g.cameFrom, from)
	return i
}

// trace tells the shortest way to the broken promise.
func (g *graph) trace() string {
	text, last := g.pathTo(g.badAt)
	bad := g.bad
	if g.badBy != (step{}) {
		for _, st := range last.steps(nil, g.search.execs) {
			if _, v := g.takeApart(&last, st); v != nil && v.rule == bad.rule {
				text, bad = text+line(st)+"\n", v
				break
			}
		}
	}
	return text + "=> " + bad.String() + "\n"
}

// takeApart takes a step and leaves the execs in their places.
func (g *graph) takeApart(w *world, st step) (world, *violation) {
	was := g.search.apart
	g.search.apart = true
	defer func() { g.search.apart = was }()
	return g.search.take(w, st)
}

// pathTo tells the way to a state, with every exec under one name all the way, and
// where it leads.
func (g *graph) pathTo(at uint32) (string, world) {
	var way []uint32
	for ; at != 0; at = g.cameFrom[at] {
		way = append(way, at)
	}
	var b strings.Builder
	var from world
	for i := len(way) - 1; i >= 0; i-- {
		for _, st := range from.steps(nil, g.search.execs) {
			to, _ := g.takeApart(&from, st)
			same := to
			if !g.search.apart {
				same.settleSymmetry()
			}
			if same == g.states[way[i]] {
				b.WriteString(line(st) + "\n")
				from = to
				break
			}
		}
	}
	return b.String(), from
}

var opNames = [...]string{
	opFork: "is forked", opDie: "dies", opReap: "is reaped", opFail: ": its runtime call fails, or is killed",
	opKillInit: "is killed", opPanic: ": the handler that starts it panics",
}

func line(st step) string {
	switch st.op {
	case opKillAll:
		return "    all that is left in the container is killed"
	case opKillAllFails:
		return "    the killing of all that is left fails"
	case opSpawn:
		return "    a process is left behind in the container"
	case opVanish:
		return "    what was left behind ends"
	case opFreeze:
		return "    the container freezes"
	case opThaw:
		return "    the container thaws"
	}
	name := "init"
	if st.who != theInit {
		name = "exec " + string(st.who.id())
	}
	if st.op != opAsk && st.op != opTell {
		return "    " + name + " " + opNames[st.op]
	}
	s := st.kind.String() + " " + name
	for _, f := range []struct {
		on   bool
		name string
	}{{st.shared, " shared"}, {st.deferred, " deferred"}, {st.oom, " oom"}} {
		if f.on {
			s += f.name
		}
	}
	return s
}

// TestSearch is the proof of the rules: with two execs, and once more with three
// where there is time.
func TestSearch(t *testing.T) {
	for _, execs := range searchExecs {
		g := explore(newSearch(theRules(), execs), true)
		fmt.Printf("lifecycle: 1 container, %d execs, every event: %d states, %d transitions, %v\n",
			execs, len(g.states), g.transitions, g.took.Round(time.Millisecond))
		if g.bad != nil {
			t.Fatalf("a promise is broken:\n%s", g.trace())
		}
		if g.liveness(); g.bad != nil {
			t.Fatalf("%s", g.trace())
		}
		g.search.everyCellIsUsed(t)
	}
}

// everyCellIsUsed: a cell that does or refuses something is met by the search, so
// that none is proved by never being tried.
func (s *search) everyCellIsUsed(t *testing.T) {
	for st := range numStates {
		for k := range numKinds {
			if c := s.rules.init[st][k]; k != ExecAsked && !c.never && s.hit[st][k] == 0 {
				t.Errorf("no way leads to %v in state %v", k, st)
			}
		}
		if s.hitGate[st] == 0 {
			t.Errorf("no exec is asked for in state %v", st)
		}
	}
	for st := range numExecStates {
		for k := range numKinds {
			if c := s.rules.exec[st][k]; !c.never && s.hitExec[st][k] == 0 {
				t.Errorf("no way leads to %v in exec state %v", k, st)
			}
		}
	}
}

// deadEnd finds a state from which no way leads to a container that is gone.
func (g *graph) deadEnd() (*violation, uint32) {
	back, start := g.backward()
	ends := make([]bool, len(g.states))
	var todo []uint32
	for i := range g.states {
		if g.states[i].forgotten {
			ends[i] = true
			todo = append(todo, uint32(i))
		}
	}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, from := range back[start[at]:start[at+1]] {
			if !ends[from] {
				ends[from] = true
				todo = append(todo, from)
			}
		}
	}
	for i, ok := range ends {
		if !ok {
			return &violation{rule: "dead end", text: "no way leads from here to a container that is gone"}, uint32(i)
		}
	}
	return nil, 0
}

// backward turns the edges round.
func (g *graph) backward() (back, start []uint32) {
	start = make([]uint32, len(g.states)+1)
	for _, e := range g.edges {
		start[e&^mustBit+1]++
	}
	for i := range g.states {
		start[i+1] += start[i]
	}
	fill := append([]uint32(nil), start...)
	back = make([]uint32, len(g.edges))
	for at := range g.states {
		for _, e := range g.edges[g.first[at]:g.first[at+1]] {
			to := e &^ mustBit
			back[fill[to]] = uint32(at)
			fill[to]++
		}
	}
	return back, start
}

// liveness looks, after a search that found nothing, at the graph as a whole.
func (g *graph) liveness() {
	if g.bad == nil {
		g.bad, g.badAt = g.deadEnd()
	}
	if g.bad == nil {
		g.bad, g.badAt = g.circle()
	}
}

// circle finds a state from which what must happen may go on for ever. Where there
// is none, it comes to an end in whatever order it happens; and with what is checked
// of the states in which nothing must happen any more it follows that whatever is
// owed is paid.
func (g *graph) circle() (*violation, uint32) {
	in := make([]uint32, len(g.states))
	for _, e := range g.edges {
		if e&mustBit != 0 {
			in[e&^mustBit]++
		}
	}
	var todo []uint32
	for i, n := range in {
		if n == 0 {
			todo = append(todo, uint32(i))
		}
	}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, e := range g.edges[g.first[at]:g.first[at+1]] {
			if to := e &^ mustBit; e&mustBit != 0 {
				if in[to]--; in[to] == 0 {
					todo = append(todo, to)
				}
			}
		}
	}
	for i, n := range in {
		if n != 0 {
			return &violation{rule: "circle", text: "what must happen never ends"}, uint32(i)
		}
	}
	return nil, 0
}
