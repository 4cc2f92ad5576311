//go:build !race

package lifecycle

// The long searches, which the race detector would make ten times longer and could
// find nothing in.

import (
	"fmt"
	"testing"
)

// TestEveryCellMatters breaks the rules in every single place, one after the other:
// what does something does nothing, what is refused is allowed, what is allowed is
// refused, what is in order is out of contract. The search has to notice each, so
// that no cell can be changed by mistake.
func TestEveryCellMatters(t *testing.T) {
	n := 0
	try := func(name string, breaks func(*rules)) {
		broken := theRules().clone()
		breaks(broken)
		g := explore(newSearch(broken, 1), true)
		g.liveness()
		if n++; g.bad == nil {
			t.Errorf("%s, and nobody notices", name)
		}
	}
	for s := range numStates {
		for k := range numKinds {
			if c := theRules().init[s][k]; k != ExecAsked && !c.never {
				to, how := opposite(c, k)
				try(fmt.Sprintf("%v in state %v %s", k, s, how), func(r *rules) { r.init[s][k] = to })
			}
		}
		// No exec can be there before the container was started, or when it has gone, so
		// that nobody could pass an open gate.
		if s < Running || s == Condemned || s == Gone {
			continue
		}
		for name, answer := range map[string]func(*rules) *error{
			"starts":    func(r *rules) *error { return &r.execGate[s].start },
			"new execs": func(r *rules) *error { return &r.execGate[s].add },
		} {
			if *answer(theRules()) != nil {
				try(fmt.Sprintf("the gate of %v is open to %s", s, name), func(r *rules) { *answer(r) = nil })
			} else {
				try(fmt.Sprintf("the gate of %v is closed to %s", s, name), func(r *rules) { *answer(r) = errNoInit })
			}
		}
	}
	for s := range numExecStates {
		for k := range numKinds {
			if c := theRules().exec[s][k]; !c.never {
				to, how := opposite(c, k)
				try(fmt.Sprintf("%v in exec state %v %s", k, s, how), func(r *rules) { r.exec[s][k] = to })
			}
		}
		if s == ExecAbsent { // there is none that could count
			continue
		}
		try(fmt.Sprintf("an exec in state %v counts: %v", s, !theRules().live[s]), func(r *rules) { r.live[s] = !r.live[s] })
	}
	t.Logf("%d places broken", n)
}

// opposite is a cell that does the opposite of c.
func opposite(c cell, k Kind) (to cell, how string) {
	switch {
	case c.refuse != nil:
		return accept, "is allowed"
	case c.nothing && k <= DeleteAsked:
		return refuse(errNotRunning), "is refused"
	case c.nothing:
		return never, "is out of contract"
	}
	return nothing, "does nothing"
}

// TestSearchApart searches without telling states alike that differ only in which
// exec is which: the reduction hides nothing.
func TestSearchApart(t *testing.T) {
	s := newSearch(theRules(), 2)
	s.apart = true
	if g := explore(s, false); g.bad != nil {
		t.Fatalf("a promise is broken:\n%s", g.trace())
	}
}
