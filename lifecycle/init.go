package lifecycle

// What events do to init and to the container. Each function is the content of
// cells of initTable and is called in the states that name it there.

import "fmt"

// to is a bare change of state.
func to(s State) func(*Machine, Event) {
	return func(m *Machine, _ Event) { m.state = s }
}

func beginCreate(m *Machine, ev Event) {
	m.state, m.shared, m.deferred = Creating, ev.Shared, ev.Deferred
}

func endCreate(m *Machine, ev Event) {
	if m.deferred { // there is no process yet, whatever pid is given
		m.state = Deferring
		m.announce(TopicCreate, Init, 0, Exit{})
		return
	}
	m.state, m.pid = Waiting, ev.Pid
	m.announce(TopicCreate, Init, m.pid, Exit{})
	// Init may be dead already (#9103). It is watched from here on and so found to
	// be dead after its creation was announced.
	m.emit(Watch, Init)
}

// forget lets those go on who wait for an exec that was never started: the others
// were let go when their exit was announced or their start had failed.
func forget(m *Machine, _ Event) {
	m.state = Gone
	for p, e := range m.execs {
		if e.state == ExecAdded {
			m.emit(Release, p)
		}
	}
	clear(m.execs)
	m.emit(Forget, Init)
}

func endStart(m *Machine, _ Event) {
	m.state = Running
	m.announceStart()
}

func (m *Machine) announceStart() {
	m.started = true
	m.announce(TopicStart, Init, m.pid, Exit{})
}

func endRestore(m *Machine, ev Event) {
	m.pid = ev.Pid
	endStart(m, ev)
	m.emit(Watch, Init)
}

// failRestore: there is no process and there never will be one, so nobody may go
// on waiting for it.
func failRestore(m *Machine, _ Event) {
	m.state = RestoreBroken
	m.emit(Release, Init)
}

// abandon removes a container that never had a process.
func abandon(m *Machine, _ Event) {
	m.state = Deleting
	m.emit(Release, Init)
}

// holdExit keeps the exit of an init that dies while the runtime starts it: not
// known to be started yet, it must not be announced as exited.
func holdExit(m *Machine, ev Event) { m.state, m.exit = StartingExited, ev.Exit }

// endStartExited: the runtime says that it has started an init that is dead.
func endStartExited(m *Machine, ev Event) {
	m.announceStart()
	beginExit(m, ev)
}

// exit takes the exit of an init of which nothing is under way.
func exit(m *Machine, ev Event) {
	m.exit = ev.Exit
	beginExit(m, ev)
}

// beginExit begins to end the container. Every exit of init comes through here,
// early or not, so that none can miss the killing (W1).
func beginExit(m *Machine, _ Event) {
	m.state = Exiting
	m.killRest()
	m.settle()
}

// killRest kills what init left behind, if the kernel has not done so with it.
// One that is under way may have missed what was added meanwhile: again.
func (m *Machine) killRest() {
	switch {
	case !m.shared:
	case m.killing == notKilling:
		m.killing = killingOnce
		m.emit(KillAll, Init)
	default:
		m.killing = killingAgain
	}
}

// latePause: a pause that was under way when init died may have frozen the cgroup
// after everything in it was killed. An exec that is on its way is stuck in there
// (in cgroup v1 not even SIGKILL ends what is frozen), and nobody can resume a
// container that is dead. Killing thaws, so it is done again. Not so where the pid
// namespace was init's own: then its exit says that nothing is left to be frozen.
func latePause(m *Machine, _ Event) {
	if m.live() > 0 {
		m.killRest()
	}
}

// notKillingAny and notLooking: an answer that was not asked for must not end the
// container.
func notKillingAny(m *Machine) error {
	if m.killing == notKilling {
		return fmt.Errorf("%w: no kill-all is under way", ErrContract)
	}
	return nil
}

func notLooking(m *Machine) error {
	if !m.looking {
		return fmt.Errorf("%w: no last look is under way", ErrContract)
	}
	return nil
}

func endKillAll(m *Machine, _ Event) {
	again := m.killing == killingAgain
	m.killing = notKilling
	if again {
		m.killRest()
	}
	m.settle()
}

// failKillAll kills again: something may live, and while it does init's exit
// would be a lie. What was added meanwhile is killed with the rest.
func failKillAll(m *Machine, _ Event) {
	m.killing = killingOnce
	m.emit(KillAll, Init)
}

// settle takes the last look once nothing holds init's exit back any more.
func (m *Machine) settle() {
	if m.state != Exiting || m.looking || m.killing != notKilling || m.live() > 0 {
		return
	}
	m.looking = true
	m.emit(LastLook, Init)
}

// endExit announces the exit of init. The last look is over, so an OOM kill is
// told before the exit that it explains (W15).
func endExit(m *Machine, ev Event) {
	if ev.OOM {
		announceOOM(m, ev)
	}
	m.state = Stopped
	m.announce(TopicExit, Init, m.pid, m.exit)
	m.emit(Release, Init)
}

func announceOOM(m *Machine, _ Event) { m.announce(TopicOOM, Init, m.pid, Exit{}) }

func endPause(m *Machine, _ Event) {
	m.state = Frozen
	m.announce(TopicPaused, Init, m.pid, Exit{})
}

func endResume(m *Machine, _ Event) {
	m.state = Running
	m.announce(TopicResumed, Init, m.pid, Exit{})
}

// condemn ends a created init that is to be deleted. Its exit is announced as any
// other, and only then can it be deleted (W3).
func condemn(m *Machine, _ Event) {
	m.state = Condemned
	m.emit(KillInit, Init)
	m.emit(AskAgain, Init)
}

// showsRunning: what has run cannot be deleted before its exit is announced.
func showsRunning(m *Machine) error {
	if m.started {
		return errStillRunning
	}
	return nil
}

// askAgain: a container that never ran may be deleted, and it shows as created
// until the exit of its dead init is announced; so that has to be waited for, as
// if the delete had come before the death.
func askAgain(m *Machine, _ Event) { m.emit(AskAgain, Init) }

func endDelete(m *Machine, ev Event) {
	m.announce(TopicDelete, Init, m.pid, m.exit)
	forget(m, ev)
}

// failDelete makes it possible to ask again. A container that never had a process
// stays one that cannot be started, and for which nobody waits any more.
func failDelete(m *Machine, _ Event) {
	m.state = Stopped
	if m.pid == 0 {
		m.state = RestoreBroken
	}
}
