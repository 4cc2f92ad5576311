package lifecycle

// What events do to an exec. Each function is the content of cells of execTable.

func addExec(m *Machine, e *exec, _ Event) {
	if m.execs == nil {
		m.execs = make(map[Proc]*exec)
	}
	e.state = ExecAdded
	m.execs[e.id] = e
	m.announce(TopicExecAdded, e.id, 0, Exit{})
}

// beginExec lets the exec be started. From here on it counts as live, because a
// process of it may exist at any moment, whatever is known of it (#10589, W9).
func beginExec(_ *Machine, e *exec, _ Event) { e.state = ExecStarting }

// endExecStart announces the start and begins to wait: one that is dead already
// is found then. If init died meanwhile, the exec may have joined after all else
// was killed, so it is killed again (W18).
func endExecStart(m *Machine, e *exec, ev Event) {
	e.state, e.pid = ExecRunning, ev.Pid
	m.announce(TopicExecStarted, e.id, e.pid, Exit{})
	m.emit(Watch, e.id)
	m.startEnded()
}

// failExecStart: nothing of the exec is left, no start and no exit is announced
// and it cannot be started again (W10). Those who wait for it go on.
func failExecStart(m *Machine, e *exec, _ Event) {
	e.state = ExecBroken
	m.emit(Release, e.id)
	m.startEnded()
}

// startEnded is called when the start of an exec has ended either way.
func (m *Machine) startEnded() {
	if m.state == Exiting {
		m.killRest()
	}
	m.settle()
}

func exitExec(m *Machine, e *exec, ev Event) {
	e.state, e.exit = ExecExited, ev.Exit
	m.announce(TopicExit, e.id, e.pid, e.exit)
	m.emit(Release, e.id)
	m.settle()
}

// deleteAdded: those who wait for what will never be started go on.
func deleteAdded(m *Machine, e *exec, ev Event) {
	m.emit(Release, e.id)
	deleteExec(m, e, ev)
}

func deleteExec(_ *Machine, e *exec, _ Event) { e.state = ExecDeleting }

func dropExec(m *Machine, e *exec, _ Event) { delete(m.execs, e.id) }
