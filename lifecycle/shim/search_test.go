package shim

import (
	"fmt"
	"testing"
	"time"
)

// graph is the outcome of a search.
type graph struct {
	states, steps int
	trace         string
	bad           *violation
	took          time.Duration
}

type node struct {
	w    *world
	from int
	by   string
}

// explore searches to exhaustion, or to the first broken promise.
func explore(r *rules, n int) (g graph) {
	begun := time.Now()
	defer func() { g.took = time.Since(begun) }()
	s := &search{rules: r, ends: [2]map[string]bool{{}, {}}}
	first := s.begin()
	first.clients = n
	seen := map[string]bool{first.key(): true}
	nodes := []node{{w: first}}
	stop := func(at int, by string) graph {
		g.bad, g.states = s.bad, len(nodes)
		for i := at; i > 0; i = nodes[i].from {
			g.trace = nodes[i].by + "\n" + g.trace
		}
		g.trace += by + "\n"
		return g
	}
	for at := 0; at < len(nodes); at++ {
		w := nodes[at].w
		for _, well := range []bool{true, false} {
			if !s.orphan(w.clone(), well) && s.bad == nil {
				s.fail("never ends", fmt.Sprintf("removals go well: %v", well))
			}
			if s.bad != nil {
				return stop(at, "everybody leaves")
			}
		}
		for _, m := range moves(w) {
			g.steps++
			to := w.clone()
			m.do(s, to)
			if s.bad != nil {
				return stop(at, m.name)
			}
			if k := to.key(); !seen[k] {
				seen[k] = true
				nodes = append(nodes, node{to, at, m.name})
			}
		}
		nodes[at].w = nil // all that is needed of it is the way
	}
	g.states = len(nodes)
	return g
}

// TestSearch: no promise is broken, whatever happens in whatever order.
func TestSearch(t *testing.T) {
	g := explore(theRules, searchClients)
	fmt.Printf("lifecycle: shim: %d containers, %d clients: %d states, %d steps, %v\n", slots, searchClients, g.states, g.steps, g.took.Round(time.Millisecond))
	if g.bad != nil {
		t.Fatalf("%s: %s\n%s", g.bad.rule, g.bad.text, g.trace)
	}
}
