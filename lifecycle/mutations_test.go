package lifecycle

import (
	"testing"
)

// Each mutation breaks a copy of the rules the way some shim was once broken, or
// could be. The search must catch every one of them: a proof that would not
// notice is none.

type mutation struct {
	name string
	// rule is the invariant that must be found broken first.
	rule  string
	execs int
	// breaks breaks the rules.
	breaks func(*rules)
}

// early makes an exit of init that came before the end of its start go on like
// any other, so that the answer of that start comes to a container in Exiting or
// Stopped.
func early(r *rules) {
	for _, s := range []State{Exiting, Stopped} {
		r.init[s][Started] = do(func(m *Machine, _ Event) { m.announceStart() })
		r.init[s][StartFailed] = nothing
	}
}

// unkilled is beginExit as it would be if it did not kill what is left.
func unkilled(m *Machine, _ Event) {
	m.state = Exiting
	m.settle()
}

var mutations = []mutation{
	{"hold: the exit of an init that dies while it is started is not held", "1", 1, func(r *rules) {
		r.init[Starting][Exited] = do(exit)
		early(r)
	}},
	{"9103: init is waited for only once it is started", "9", 1, func(r *rules) {
		r.init[Creating][Created] = do(func(m *Machine, ev Event) {
			endCreate(m, ev)
			m.out = m.out[:1] // the announcement
		})
		r.init[Starting][Started] = do(func(m *Machine, ev Event) { endStart(m, ev); m.emit(Watch, Init) })
	}},
	{"exit before start: an early exit of init is announced before its start", "1", 1, func(r *rules) {
		r.init[StartingExited][Started] = do(func(m *Machine, ev Event) {
			m.state = Stopped
			m.announce(TopicExit, Init, m.pid, m.exit)
			m.announceStart()
			m.emit(Release, Init)
		})
	}},
	{"exec watched first: an exec is waited for before its start is announced", "1", 1, func(r *rules) {
		r.exec[ExecStarting][Started] = doExec(func(m *Machine, e *exec, ev Event) {
			e.state, e.pid = ExecRunning, ev.Pid
			m.emit(Watch, e.id)
			m.announce(TopicExecStarted, e.id, e.pid, Exit{})
			m.startEnded()
		})
	}},
	{"start told though it failed", "10", 1, func(r *rules) {
		r.init[StartingExited][StartFailed] = do(endStartExited)
	}},
	{"exit dropped after a failed start", "2", 1, func(r *rules) {
		r.init[StartBroken][Exited] = nothing
	}},
	{"9719: no exec holds the exit of init back", "5", 1, func(r *rules) {
		r.live = [numExecStates]bool{}
	}},
	{"9719: a running exec does not hold the exit of init back", "3", 1, func(r *rules) {
		r.live[ExecRunning] = false
	}},
	{"counted too late: an exec counts from when it is known to run", "5", 1, func(r *rules) {
		r.live[ExecStarting] = false
	}},
	{"9999: an exit of any process is skipped while an exec is being started", "2", 2, func(r *rules) {
		r.exec[ExecRunning][Exited] = doExec(func(m *Machine, e *exec, ev Event) {
			for _, other := range m.execs {
				if other.state == ExecStarting {
					return
				}
			}
			exitExec(m, e, ev)
		})
	}},
	{"10589: the exit of init is skipped while an exec is live, and nobody keeps it", "2", 1, func(r *rules) {
		r.init[Running][Exited] = do(func(m *Machine, ev Event) {
			if m.live() == 0 {
				exit(m, ev)
			}
		})
	}},
	{"10589, the gate: an exec is started after init was seen to be dead", "4", 1, func(r *rules) {
		r.execGate[Exiting].start = nil
	}},
	{"W1: an early exit goes past the killing", "6 (W1, W18)", 1, func(r *rules) {
		r.init[StartingExited][Started] = do(func(m *Machine, ev Event) { m.announceStart(); unkilled(m, ev) })
	}},
	{"W1: so does that of a start that failed", "6 (W1, W18)", 1, func(r *rules) {
		r.init[StartingExited][StartFailed] = do(unkilled)
	}},
	{"W18: no second kill-all after an exec was started", "6 (W1, W18)", 1, func(r *rules) {
		r.exec[ExecStarting][Started] = doExec(func(m *Machine, e *exec, ev Event) {
			e.state, e.pid = ExecRunning, ev.Pid
			m.announce(TopicExecStarted, e.id, e.pid, Exit{})
			m.emit(Watch, e.id)
			m.settle()
		})
	}},
	{"W18: no second kill-all after the start of an exec failed", "6 (W1, W18)", 1, func(r *rules) {
		r.exec[ExecStarting][StartFailed] = doExec(func(m *Machine, e *exec, _ Event) {
			e.state = ExecBroken
			m.emit(Release, e.id)
			m.settle()
		})
	}},
	{"W18: a kill-all that is under way is thought to be enough", "6 (W1, W18)", 1, func(r *rules) {
		r.init[Exiting][KillAllDone] = do(func(m *Machine, _ Event) {
			m.killing = notKilling
			m.settle()
		})
	}},
	{"F13: a kill-all that failed is taken for done", "6 (W1, W18)", 1, func(r *rules) {
		r.init[Exiting][KillAllFailed] = r.init[Exiting][KillAllDone]
	}},
	{"F13: a kill-all that failed is not repeated", "2", 0, func(r *rules) {
		r.init[Exiting][KillAllFailed] = doUnless(notKillingAny, func(m *Machine, _ Event) { m.killing = notKilling })
	}},
	{"F13: a kill-all that failed is repeated in the table alone", "2", 0, func(r *rules) {
		r.init[Exiting][KillAllFailed] = doUnless(notKillingAny, func(m *Machine, _ Event) { m.killing = killingOnce })
	}},
	{"F13: a kill-all that failed is given up once no exec is live", "6 (W1, W18)", 1, func(r *rules) {
		r.init[Exiting][KillAllFailed] = doUnless(notKillingAny, func(m *Machine, ev Event) {
			if m.live() > 0 {
				failKillAll(m, ev)
				return
			}
			m.killing = notKilling
			m.settle()
		})
	}},
	{"F13: the last look is taken while killing fails", "17", 1, func(r *rules) {
		r.init[Exiting][KillAllFailed] = doUnless(notKillingAny, func(m *Machine, ev Event) {
			failKillAll(m, ev)
			m.looking = true
			m.emit(LastLook, Init)
		})
	}},
	{"F13: the start of an exec whose handler panicked is forgotten", "totality", 1, func(r *rules) {
		r.exec[ExecStarting][StartFailed] = never
	}},
	{"F13: a start whose handler panicked leaves init startable", "10", 0, func(r *rules) {
		r.init[Starting][StartFailed] = do(to(Waiting))
	}},
	{"F13: a delete whose handler panicked is never ended", "16 (W3)", 0, func(r *rules) {
		r.init[Deleting][DeleteFailed] = nothing
	}},
	{"F13: an exec whose start failed keeps holding the exit of init back", "2", 1, func(r *rules) {
		r.live[ExecBroken] = true
	}},
	{"F13: a pause whose handler panicked is never over", "totality", 0, func(r *rules) {
		r.init[Pausing][PauseFailed] = nothing
	}},
	{"W18: a pause that comes late freezes what is killed", "6 (W1, W18)", 1, func(r *rules) {
		r.init[Exiting][Paused] = nothing
	}},
	{"W3: a created init is deleted at once", "16 (W3)", 1, func(r *rules) {
		r.init[Waiting][DeleteAsked] = do(to(Deleting))
	}},
	{"20: a running exec is deleted", "20", 1, func(r *rules) {
		r.exec[ExecRunning][DeleteAsked] = doExec(deleteExec)
	}},
	{"20: init is deleted while it is started", "20", 1, func(r *rules) {
		r.init[Starting][DeleteAsked] = do(to(Deleting))
	}},
	{"W10: an exec whose start failed may be started again", "11 (W10)", 1, func(r *rules) {
		r.exec[ExecBroken][StartAsked] = doExec(beginExec)
	}},
	{"11: those who wait for an exec whose start failed are forgotten", "11", 1, func(r *rules) {
		r.exec[ExecStarting][StartFailed] = doExec(func(m *Machine, e *exec, _ Event) {
			e.state = ExecBroken
			m.startEnded()
		})
	}},
	{"11: those who wait for what is never started are forgotten", "11", 1, func(r *rules) {
		r.exec[ExecAdded][DeleteAsked] = doExec(deleteExec)
	}},
	{"11: those who wait for a restore that failed are forgotten", "11", 1, func(r *rules) {
		r.init[Restoring][StartFailed] = do(to(RestoreBroken))
	}},
	{"W11: those who wait go on before the exit is announced", "15 (W11)", 1, func(r *rules) {
		r.init[Exiting][Looked] = doUnless(notLooking, func(m *Machine, _ Event) {
			m.state = Stopped
			m.emit(Release, Init)
			m.announce(TopicExit, Init, m.pid, m.exit)
		})
	}},
	{"W11: so they do for an exec", "15 (W11)", 1, func(r *rules) {
		r.exec[ExecRunning][Exited] = doExec(func(m *Machine, e *exec, ev Event) {
			e.state, e.exit = ExecExited, ev.Exit
			m.emit(Release, e.id)
			m.announce(TopicExit, e.id, e.pid, e.exit)
			m.settle()
		})
	}},
	{"17: no last look", "17", 1, func(r *rules) {
		r.init[Running][Exited] = do(func(m *Machine, ev Event) {
			exit(m, ev)
			if m.looking {
				m.out = m.out[:len(m.out)-1]
				endExit(m, Event{})
			}
		})
	}},
	{"17: an OOM kill is told after the exit", "17", 1, func(r *rules) {
		r.init[Stopped][OutOfMemory] = do(announceOOM)
	}},
	{"17: the last look is not told", "17", 1, func(r *rules) {
		r.init[Exiting][Looked] = doUnless(notLooking, func(m *Machine, ev Event) {
			endExit(m, Event{})
		})
	}},
	{"19: a kill is refused while init is being started", "19", 1, func(r *rules) {
		r.init[Starting][KillAsked] = refuse(errNotStarted)
	}},
	{"22: a second create is accepted", "22", 1, func(r *rules) {
		r.init[Waiting][CreateAsked] = do(beginCreate)
	}},
	{"22: a second exec of the same id is accepted", "22", 1, func(r *rules) {
		r.exec[ExecRunning][ExecAsked] = doExec(addExec)
	}},
	{"row 13: a second start is accepted", "row 13", 1, func(r *rules) {
		r.init[Running][StartAsked] = do(to(Starting))
	}},
	{"W3: the delete of what never ran is refused while its exit is held", "16 (W3)", 1, func(r *rules) {
		r.init[Exiting][DeleteAsked] = refuse(errStillRunning)
	}},
	{"W3: who deletes a created init is told to ask again, and nobody kills it", "16 (W3)", 1, func(r *rules) {
		r.init[Waiting][DeleteAsked] = do(func(m *Machine, _ Event) {
			m.state = Condemned
			m.emit(AskAgain, Init)
		})
	}},
	{"row 16: what could not be deleted cannot be deleted again", "16 (W3)", 1, func(r *rules) {
		r.init[Deleting][DeleteFailed] = nothing
	}},
	{"W3: what could not be restored cannot be deleted", "16 (W3)", 1, func(r *rules) {
		r.init[RestoreBroken][DeleteAsked] = refuse(errNoProcess)
	}},
	{"dead end: what could not be created is never forgotten", "dead end", 1, func(r *rules) {
		r.init[Creating][CreateFailed] = nothing
	}},
	{"circle: as long as an exec is live, what is left is killed again and again", "circle", 1, func(r *rules) {
		r.init[Exiting][KillAllDone] = do(func(m *Machine, ev Event) {
			endKillAll(m, ev)
			if m.live() > 0 && m.killing == notKilling {
				m.killRest()
			}
		})
	}},
	{"totality: a cell is forgotten", "totality", 1, func(r *rules) {
		r.init[Exiting][Paused] = cell{}
	}},
}

// clone shares nothing with r, so that it can be broken.
func (r *rules) clone() *rules {
	c := *r
	for s, row := range r.init {
		copied := *row
		c.init[s] = &copied
	}
	for s, row := range r.exec {
		copied := *row
		c.exec[s] = &copied
	}
	return &c
}

// TestMutations shows that the search notices.
func TestMutations(t *testing.T) {
	for _, mu := range mutations {
		t.Run(mu.name, func(t *testing.T) {
			broken := theRules().clone()
			mu.breaks(broken)
			g := explore(newSearch(broken, mu.execs), true)
			g.liveness()
			if g.bad == nil {
				t.Fatalf("not caught in %d states", len(g.states))
			}
			t.Logf("caught after %d states:\n%s", len(g.states), g.trace())
			if g.bad.rule != mu.rule {
				t.Errorf("caught as a break of %q, not of %q", g.bad.rule, mu.rule)
			}
		})
	}
}
