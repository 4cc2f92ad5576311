package shim

import (
	"fmt"
	"testing"
)

// mutations are broken copies of the rules. The search must catch every one of them,
// by the promise that is named: a proof that would not notice is none.
var mutations = []struct {
	name, rule string
	breaks     func(*rules)
}{
	{"W4: a Shutdown ends the shim while a create is in flight", "ends over a create", func(r *rules) {
		r.keeps[Creating] = false
	}},
	{"W4: the same, when its caller has gone", "ends over a create", func(r *rules) {
		r.keeps[Forgotten] = false
	}},
	{"a Shutdown ends the shim over a container", "ends over a live container", func(r *rules) {
		r.keeps[There] = false
	}},
	{"a Shutdown ends the shim while it undoes a create", "ends over a live container", func(r *rules) {
		r.keeps[Removing] = false
	}},
	{"a Shutdown ends the shim over a create that could not be undone", "ends over a container", func(r *rules) {
		r.keeps[Stuck] = false
	}},
	{"F04: a forgotten create is kept", "keeps a forgotten create", func(r *rules) {
		r.table[Forgotten][Made] = cell{to: There}
	}},
	{"F04: that the caller has gone is not noted", "keeps a forgotten create", func(r *rules) {
		r.table[Creating][callerGone] = cell{stays: true}
	}},
	{"a create is undone whose caller is there", "removes what is wanted", func(r *rules) {
		r.table[Creating][Made] = cell{to: Removing, do: Remove}
	}},
	{"F04: the Shutdown of the caller that has gone is forgotten", "a remembered Shutdown is lost", func(r *rules) {
		r.remembers = func(*Machine) bool { return false }
	}},
	{"a Shutdown is remembered over another container's delete", "ends unasked", func(r *rules) {
		r.remembers = func(*Machine) bool { return true }
		r.drops = func(_ *Machine, ev Event) bool { return ev.Kind == CreateAsked }
	}},
	{"a new create does not end the memory of a Shutdown", "ends unasked", func(r *rules) {
		r.drops = func(m *Machine, ev Event) bool { return ev.Kind != CreateAsked && m.State(ev.ID) == There }
	}},
	{"a success does not end the memory of a Shutdown", "ends unasked", func(r *rules) {
		r.drops = func(_ *Machine, ev Event) bool { return ev.Kind == CreateAsked }
	}},
	{"a remembered Shutdown ends the shim that a client has connected to", "ends before a client's eyes", func(r *rules) {
		r.wanted = func(*Machine) bool { return false }
	}},
	{"a remembered Shutdown never ends the shim", "a remembered Shutdown is lost", func(r *rules) {
		r.wanted = func(*Machine) bool { return true }
	}},
	{"an old look counts", "old look", func(r *rules) {
		r.fresh = func(*Machine, Event) bool { return true }
	}},
	{"no look counts: F05", "never ends", func(r *rules) {
		r.fresh = func(*Machine, Event) bool { return false }
	}},
	{"a look ends the shim over containers that live", "removes what is wanted", func(r *rules) {
		r.orphan = func(*Machine, []ID) bool { return true }
	}},
	{"one orphan is enough", "removes what is wanted", func(r *rules) {
		r.orphan = func(m *Machine, ids []ID) bool { return len(ids) > 0 }
	}},
	{"no shim with a container is an orphan: F05", "never ends", func(r *rules) {
		r.orphan = func(*Machine, []ID) bool { return false }
	}},
	{"orphans that cannot be removed keep the shim", "never ends", func(r *rules) { r.end = 1 << 30 }},
	{"the failure of a removal is out of contract", "contract", func(r *rules) {
		r.table[Removing][RemoveFailed] = cell{}
	}},
	{"what could not be undone is not tried again", "never undone", func(r *rules) {
		r.table[Removing][RemoveFailed] = cell{to: Stuck}
	}},
	{"a container that was started is taken for stuck", "contract", func(r *rules) {
		r.table[Removing][Used] = cell{}
	}},
	{"a container that was started goes on being removed", "removes what is used", func(r *rules) {
		r.table[Removing][Used] = cell{to: Stuck, do: Retry}
	}},
	{"an orphan is forgotten instead of being removed", "forgets a container", func(r *rules) {
		r.table[There][orphaned] = gone
	}},
	{"a create that has failed stays", "never ends", func(r *rules) {
		r.table[Creating][Gone] = cell{stays: true}
		r.table[There][CreateAsked] = cell{to: Creating}
		r.table[Creating][CreateAsked] = cell{to: Creating}
	}},
}

// TestMutations: the search catches every broken copy of the rules.
func TestMutations(t *testing.T) {
	caught := 0
	for _, m := range mutations {
		r := *theRules
		m.breaks(&r)
		g := explore(&r, clients)
		switch {
		case g.bad == nil:
			t.Errorf("%s: not caught in %d states", m.name, g.states)
		case g.bad.rule != m.rule:
			t.Errorf("%s: caught by %q (%s), want %q\n%s", m.name, g.bad.rule, g.bad.text, m.rule, g.trace)
		default:
			caught++
		}
	}
	fmt.Printf("lifecycle: shim: %d of %d broken copies of the rules caught\n", caught, len(mutations))
}
