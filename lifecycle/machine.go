package lifecycle

import "fmt"

// Machine is one container: its init, its execs, and what is still owed before
// init's exit may be announced. The zero value is not usable: call New.
//
// Always true of it:
//   - an exit of init that was seen and not announced is in StartingExited or
//     Exiting, nowhere else;
//   - in Exiting no exec can begin;
//   - init's exit is announced in the Step in which the last look came back, and
//     the last look is taken once, when no exec is live and no kill is under way.
type Machine struct {
	rules *rules
	state State
	pid   int
	exit  Exit
	// shared: the kernel does not end the other processes together with init.
	shared bool
	// deferred: no process before Start.
	deferred bool
	// started: its start was announced.
	started bool
	killing killing
	// looking: the last look was asked for.
	looking bool
	execs   map[Proc]*exec
	// out collects the effects of the current Step.
	out []Effect
}

// exec is one exec'd process.
type exec struct {
	id    Proc
	state ExecState
	pid   int
	exit  Exit
}

// killing is how far the killing of what init left behind has come.
type killing uint8

const (
	notKilling killing = iota
	// killingOnce: a KillAll is under way.
	killingOnce
	// killingAgain: so it is, and since it began a start has ended that may have
	// added a process behind its back.
	killingAgain
)

// New makes the machine of a container that nothing was asked of yet.
func New() *Machine { return &Machine{rules: theRules()} }

// Step takes one event. The effects are in the order in which they must happen;
// the slice is the machine's own and valid until the next Step. An error refuses
// what a client asked for (it matches ErrAbsent or a class of containerd/errdefs)
// or says that the contract was broken (ErrContract); either way nothing has
// changed.
func (m *Machine) Step(ev Event) ([]Effect, error) {
	if ev.Kind >= numKinds {
		return nil, fmt.Errorf("%w: %v", ErrContract, ev.Kind)
	}
	m.out = m.out[:0]
	if ev.Kind == ExecAsked || ev.Proc != Init {
		return m.stepExec(ev)
	}
	c := m.rules.init[m.state][ev.Kind]
	switch {
	case c.refuse != nil:
		return nil, c.refuse
	case c.never || !c.written():
		return nil, fmt.Errorf("%w: %v in state %v", ErrContract, ev.Kind, m.state)
	case c.init != nil:
		if c.unless != nil {
			if err := c.unless(m); err != nil {
				return nil, err
			}
		}
		c.init(m, ev)
	}
	return m.out, nil
}

func (m *Machine) stepExec(ev Event) ([]Effect, error) {
	if ev.Proc == Init {
		return nil, fmt.Errorf("%w: an exec needs an id", ErrContract)
	}
	e := m.execs[ev.Proc]
	if e == nil {
		e = &exec{id: ev.Proc}
	}
	c := m.rules.exec[e.state][ev.Kind]
	switch {
	case c.refuse != nil:
		return nil, c.refuse
	case c.never || !c.written():
		return nil, fmt.Errorf("%w: %v of exec %q in state %v", ErrContract, ev.Kind, ev.Proc, e.state)
	case c.exec != nil:
		if err := m.pass(ev.Kind); err != nil {
			return nil, err
		}
		c.exec(m, e, ev)
	}
	return m.out, nil
}

// pass says whether the state of init lets an exec be added or started.
func (m *Machine) pass(k Kind) error {
	switch k {
	case ExecAsked:
		if err := m.rules.execGate[m.state].add; err != nil || m.started {
			return err
		}
		return errNoInit // it died without having been started
	case StartAsked:
		return m.rules.execGate[m.state].start
	}
	return nil
}

// State is where init stands.
func (m *Machine) State() State { return m.state }

// ExecState is where the exec stands; ExecAbsent if there is none of that id.
func (m *Machine) ExecState(p Proc) ExecState {
	if e := m.execs[p]; e != nil {
		return e.state
	}
	return ExecAbsent
}

// View is what clients may be told of a process.
type View struct {
	Status Status
	// Pid is 0 as long as there is no process.
	Pid int
	// Exit is set once the exit was announced (Status is StatusStopped).
	Exit Exit
}

// View is what clients may be told of p; false if it does not exist for them. An
// exit shows only once it is announced.
func (m *Machine) View(p Proc) (View, bool) {
	if p == Init {
		v := m.viewInit()
		return v, v.Status != StatusUnknown
	}
	e := m.execs[p]
	if e == nil {
		return View{}, false
	}
	v := View{Status: execStatusOf[e.state], Pid: e.pid}
	switch {
	case v.Status != StatusStopped:
	case e.pid == 0: // being deleted, and it never ran: no exit was announced
		v.Status = StatusCreated
	default:
		v.Exit = e.exit
	}
	if v.Status == StatusRunning && statusOf[m.state] == StatusPaused {
		v.Status = StatusPaused
	}
	return v, true
}

// viewInit corrects what the state alone says by what was announced: a container
// that never ran is not shown as running while its exit is held, nor as stopped
// while it is deleted without ever having had a process.
func (m *Machine) viewInit() View {
	v := View{Status: statusOf[m.state], Pid: m.pid}
	switch {
	case v.Status == StatusRunning && !m.started, v.Status == StatusStopped && m.pid == 0:
		v.Status = StatusCreated
	case v.Status == StatusStopped:
		v.Exit = m.exit
	}
	return v
}

// Execs calls f for every exec, in no order, until it returns false.
func (m *Machine) Execs(f func(Proc, View) bool) {
	for p := range m.execs {
		v, _ := m.View(p)
		if !f(p, v) {
			return
		}
	}
}

// Shared says whether init shares its pid namespace with processes that are not
// the container's.
func (m *Machine) Shared() bool { return m.shared }

// live is how many execs hold init's exit back.
func (m *Machine) live() (n int) {
	for _, e := range m.execs {
		if m.rules.live[e.state] {
			n++
		}
	}
	return n
}

func (m *Machine) emit(k EffectKind, p Proc) { m.out = append(m.out, Effect{Kind: k, Proc: p}) }

func (m *Machine) announce(t Topic, p Proc, pid int, exit Exit) {
	m.out = append(m.out, Effect{Kind: Announce, Topic: t, Proc: p, Pid: pid, Exit: exit})
}
