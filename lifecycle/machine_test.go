package lifecycle

import (
	"testing"

	"github.com/containerd/errdefs"
)

// must steps m and wants no refusal.
func must(t *testing.T, m *Machine, evs ...Event) {
	t.Helper()
	for _, ev := range evs {
		if _, err := m.Step(ev); err != nil {
			t.Fatalf("%v of %q: %v", ev.Kind, ev.Proc, err)
		}
	}
}

func running(t *testing.T) *Machine {
	m := New()
	must(t, m, Event{Kind: CreateAsked, Shared: true}, Event{Kind: Created, Pid: 100},
		Event{Kind: StartAsked}, Event{Kind: Started})
	return m
}

// TestView: what clients are told, process by process.
func TestView(t *testing.T) {
	m := running(t)
	for _, p := range []Proc{"a", "b"} {
		must(t, m, Event{Kind: ExecAsked, Proc: p}, Event{Kind: StartAsked, Proc: p}, Event{Kind: Started, Proc: p, Pid: 101})
	}
	must(t, m, Event{Kind: Exited, Proc: "b", Exit: Exit{Status: 3}})
	if v, ok := m.View("b"); !ok || v != (View{Status: StatusStopped, Pid: 101, Exit: Exit{Status: 3}}) {
		t.Errorf("b shows as %+v, %v", v, ok)
	}
	if _, ok := m.View("nobody"); ok {
		t.Error("an exec that nobody asked for is shown")
	}
	if m.State() != Running || m.ExecState("a") != ExecRunning || m.ExecState("nobody") != ExecAbsent || !m.Shared() {
		t.Errorf("state %v, a %v, nobody %v, shared %v", m.State(), m.ExecState("a"), m.ExecState("nobody"), m.Shared())
	}
	seen := map[Proc]Status{}
	m.Execs(func(p Proc, v View) bool { seen[p] = v.Status; return true })
	if len(seen) != 2 || seen["a"] != StatusRunning || seen["b"] != StatusStopped {
		t.Errorf("the execs are %v", seen)
	}
	calls := 0
	m.Execs(func(Proc, View) bool { calls++; return false })
	if calls != 1 {
		t.Errorf("called %d times after it said that it has enough", calls)
	}
}

// TestContractBroken: what cannot happen is refused as such, never as what a client
// did wrong, and changes nothing.
func TestContractBroken(t *testing.T) {
	m := running(t)
	before := fingerprint(m)
	for _, ev := range []Event{
		{Kind: numKinds}, {Kind: 200, Proc: "a"}, {Kind: ExecAsked}, {Kind: Created}, {Kind: Looked},
		{Kind: KillAllDone}, {Kind: Started}, {Kind: Exited, Proc: "a"}, {Kind: Paused, Proc: "a"},
	} {
		effects, err := m.Step(ev)
		if !IsContract(err) || !errdefs.IsInternal(err) || len(effects) != 0 {
			t.Errorf("%v of %q gives %v, %v", ev.Kind, ev.Proc, effects, err)
		}
	}
	if fingerprint(m) != before {
		t.Error("and something has changed")
	}
	must(t, m, Event{Kind: Exited})
	for _, k := range []Kind{Looked, Exited} { // the killing comes first
		if _, err := m.Step(Event{Kind: k}); !IsContract(err) {
			t.Errorf("%v while all that is left is killed gives %v", k, err)
		}
	}
	must(t, m, Event{Kind: KillAllDone})
	for _, k := range []Kind{KillAllDone, KillAllFailed} {
		if _, err := m.Step(Event{Kind: k}); !IsContract(err) {
			t.Errorf("%v as a second answer of one kill-all gives %v", k, err)
		}
	}
}

// TestF13KillAllIsRepeated: killing that failed is asked for again, and init's
// exit is held as long as it fails.
func TestF13KillAllIsRepeated(t *testing.T) {
	m := running(t)
	must(t, m, Event{Kind: Exited})
	for range 3 {
		effects, err := m.Step(Event{Kind: KillAllFailed})
		if err != nil || len(effects) != 1 || effects[0].Kind != KillAll {
			t.Fatalf("a kill-all that failed gives %v, %v", effects, err)
		}
		if v, _ := m.View(Init); m.State() != Exiting || v.Status != StatusRunning {
			t.Fatalf("init shows as %v in state %v", v.Status, m.State())
		}
	}
	must(t, m, Event{Kind: KillAllDone}, Event{Kind: Looked})
	if m.State() != Stopped {
		t.Errorf("state %v after the killing", m.State())
	}
}

// TestNames: everything has a name, and what is out of range has one too.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	check := func(s string, want string) {
		if want == "" && (s == "" || seen[s]) || want != "" && s != want {
			t.Errorf("%q is not a name of its own", s)
		}
		seen[s] = true
	}
	for k := range numKinds {
		check("event "+k.String(), "")
	}
	for s := range numStates {
		check("state "+s.String(), "")
	}
	for s := range numExecStates {
		check("exec state "+s.String(), "")
	}
	for k := Announce; k <= Forget; k++ {
		check("effect "+k.String(), "")
	}
	for k := TopicCreate; k <= TopicDelete; k++ {
		check("topic "+k.String(), "")
	}
	check(numKinds.String(), "event(24)")
	check(numStates.String(), "state(18)")
	check(EffectKind(0).String(), "effect(0)")
}
