package lifecycle

// State is where init stands. It says more than clients are told: see
// Machine.Status for what they see.
type State uint8

// The states of init, and with it of the container.
const (
	// Absent: nothing was asked for yet.
	Absent State = iota
	// Creating: the runtime is making the container.
	Creating
	// Waiting: created, with a process that waits for Start.
	Waiting
	// Deferred: created for a restore, with no process before Start.
	Deferring
	// Starting: the runtime is starting init.
	Starting
	// StartingExited: init died while the runtime is starting it. Its exit is held
	// until the start was announced or has failed.
	StartingExited
	// Restoring: the runtime is restoring init.
	Restoring
	// StartBroken: the start failed; init was created and is not known to run.
	StartBroken
	// RestoreBroken: the restore failed; there is no process.
	RestoreBroken
	// Running: started.
	Running
	// Pausing: the runtime is freezing it.
	Pausing
	// Frozen: paused.
	Frozen
	// Resuming: the runtime is thawing it.
	Resuming
	// Condemned: a created init was killed because its delete was asked for.
	Condemned
	// Exiting: init is dead, its exit not announced: execs that live, processes
	// that are being killed, or the last look for an OOM kill come first.
	Exiting
	// Stopped: its exit was announced.
	Stopped
	// Deleting: the runtime is removing the container.
	Deleting
	// Gone: removed, or never made.
	Gone

	numStates
)

// ExecState is where an exec stands.
type ExecState uint8

// The states of an exec. One that is not in the table of execs is ExecAbsent.
const (
	// ExecAbsent: unknown, or deleted.
	ExecAbsent ExecState = iota
	// ExecAdded: there is no process yet.
	ExecAdded
	// ExecStarting: the runtime is starting it. It counts as live from here on.
	ExecStarting
	// ExecBroken: its start failed and nothing of it is left.
	ExecBroken
	// ExecRunning: its start was announced.
	ExecRunning
	// ExecExited: its exit was announced.
	ExecExited
	// ExecDeleting: it is being removed.
	ExecDeleting

	numExecStates
)

// Status is what clients are told of a process.
type Status uint8

// What clients can be told.
const (
	StatusUnknown Status = iota
	StatusCreated
	StatusRunning
	StatusPausing
	StatusPaused
	StatusStopped
)

var stateNames = [numStates]string{
	Absent: "absent", Creating: "creating", Waiting: "waiting", Deferring: "deferring",
	Starting: "starting", StartingExited: "starting-exited", Restoring: "restoring",
	StartBroken: "start-broken", RestoreBroken: "restore-broken", Running: "running",
	Pausing: "pausing", Frozen: "frozen", Resuming: "resuming", Condemned: "condemned",
	Exiting: "exiting", Stopped: "stopped", Deleting: "deleting", Gone: "gone",
}

// String names the state.
func (s State) String() string { return name(stateNames[:], int(s), "state") }

var execStateNames = [numExecStates]string{
	ExecAbsent: "absent", ExecAdded: "added", ExecStarting: "starting", ExecBroken: "broken",
	ExecRunning: "running", ExecExited: "exited", ExecDeleting: "deleting",
}

// String names the state.
func (s ExecState) String() string { return name(execStateNames[:], int(s), "exec state") }

// statusOf is what clients are told in each state. An exit is not told before it
// was announced: whoever saw it could otherwise overtake the announcement.
var statusOf = [numStates]Status{
	Absent: StatusUnknown, Creating: StatusUnknown, Waiting: StatusCreated, Deferring: StatusCreated,
	Starting: StatusCreated, StartingExited: StatusCreated, Restoring: StatusCreated,
	StartBroken: StatusCreated, RestoreBroken: StatusCreated, Running: StatusRunning,
	Pausing: StatusPausing, Frozen: StatusPaused, Resuming: StatusPaused, Condemned: StatusCreated,
	Exiting: StatusRunning, Stopped: StatusStopped, Deleting: StatusStopped, Gone: StatusUnknown,
}

var execStatusOf = [numExecStates]Status{
	ExecAbsent: StatusUnknown, ExecAdded: StatusCreated, ExecStarting: StatusCreated,
	ExecBroken: StatusCreated, ExecRunning: StatusRunning, ExecExited: StatusStopped,
	ExecDeleting: StatusStopped,
}
