package lifecycle

import (
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
)

// ErrContract is returned when an event cannot happen if the caller keeps the
// contract in the package documentation. Nothing was changed.
var ErrContract = fmt.Errorf("lifecycle: event out of contract: %w", errdefs.ErrInternal)

// ErrDeleting is returned to who asks to delete what is being deleted. The
// caller may wait for the first delete and give its answer.
var ErrDeleting = fmt.Errorf("is being deleted: %w", errdefs.ErrFailedPrecondition)

// ErrAbsent is what a refusal matches that says of a container or a process that
// it was never created, has been deleted, or has exited. It is no class of
// errdefs: only the caller can tell a client to forget what the request names.
var ErrAbsent = errors.New("lifecycle: not there")

// absent is a refusal that matches ErrAbsent.
type absent string

func (e absent) Error() string        { return string(e) }
func (e absent) Is(target error) bool { return target == ErrAbsent }

// The refusals. Their classes are what containerd's clients decide by; the texts
// of the first two and of errNoInit are known to its tests and to users.
var (
	errNotCreated   error = absent("container not created")
	errFinished     error = absent("process already finished")
	errNoExec       error = absent("process does not exist")
	errExists             = fmt.Errorf("id already exists: %w", errdefs.ErrAlreadyExists)
	errNoInit             = fmt.Errorf("init process is not running: %w", errdefs.ErrFailedPrecondition)
	errNotStarted         = fmt.Errorf("process is not started: %w", errdefs.ErrFailedPrecondition)
	errStarting           = fmt.Errorf("process is being started: %w", errdefs.ErrFailedPrecondition)
	errStarted            = fmt.Errorf("process was started already: %w", errdefs.ErrFailedPrecondition)
	errStartFailed        = fmt.Errorf("the start of the process has failed: %w", errdefs.ErrFailedPrecondition)
	errExited             = fmt.Errorf("process has exited: %w", errdefs.ErrFailedPrecondition)
	errStillRunning       = fmt.Errorf("cannot delete a running process: %w", errdefs.ErrFailedPrecondition)
	errPaused             = fmt.Errorf("container is paused: %w", errdefs.ErrFailedPrecondition)
	errNotPaused          = fmt.Errorf("container is not paused: %w", errdefs.ErrFailedPrecondition)
	errNotRunning         = fmt.Errorf("container is not running: %w", errdefs.ErrFailedPrecondition)
	errNoProcess          = fmt.Errorf("container has no process yet: %w", errdefs.ErrFailedPrecondition)
	errCondemned          = fmt.Errorf("container is about to be deleted: %w", errdefs.ErrFailedPrecondition)
)

// cell is what one event does in one state: exactly one of its fields is set, but
// for unless, which only goes with init.
type cell struct {
	// refuse is the answer to a client.
	refuse error
	// init and exec carry the event out.
	init func(*Machine, Event)
	exec func(*Machine, *exec, Event)
	// unless refuses, or finds the event out of contract, where the state alone does
	// not say. Nil if it does.
	unless func(*Machine) error
	// nothing: the event is in order and changes nothing.
	nothing bool
	// never: the event cannot happen while the contract is kept.
	never bool
}

func refuse(err error) cell           { return cell{refuse: err} }
func do(f func(*Machine, Event)) cell { return cell{init: f} }
func doUnless(unless func(*Machine) error, f func(*Machine, Event)) cell {
	return cell{init: f, unless: unless}
}
func doExec(f func(*Machine, *exec, Event)) cell { return cell{exec: f} }
func (c cell) written() bool {
	return c.refuse != nil || c.init != nil || c.exec != nil || c.nothing || c.never
}

var (
	nothing = cell{nothing: true}
	never   = cell{never: true}
)

// rules is the whole of the rules: every state by every event. Tests break a
// clone of it on purpose, to see that the search notices.
type rules struct {
	// init is what an event about the container or its init does.
	init [numStates]*row
	// exec is what an event about an exec does.
	exec [numExecStates]*row
	// execGate is the answer to an exec that is to be added or started, by the
	// state of init. A container that is frozen takes none, because the runtime
	// could not start it. One whose init is dead starts none, even though that exit
	// is not announced yet (#10589); until it is, an exec may still be added, since
	// clients are told that the container runs (containerd's TestIssue10589 asks
	// for both).
	execGate [numStates]gate
	// live says in which states an exec holds init's exit back (#9719). It counts
	// from the moment its start was allowed, not from when it is known to run.
	live [numExecStates]bool
}

// gate is the answer to an exec that is to be added, and to one that is to be
// started: nil lets it pass.
type gate struct{ add, start error }

// theRules are lark's. They are made with the first container: most processes of a
// shim only start or delete another, and never need them.
var theRules = sync.OnceValue(func() *rules {
	return &rules{
		init:     initTable(),
		exec:     execTable(),
		execGate: execGate,
		live:     [numExecStates]bool{ExecStarting: true, ExecRunning: true},
	}
})

// row is one state of init: all that clients may ask, then the outcomes of what
// was begun, then what is observed. It is written in place: rows are large.
type row [numKinds]cell

// asked is a row with the answers to what clients ask of the container; the rest
// of it is never until it is written over.
func asked(create, start, kill, pause, resume, update, checkpoint, del cell) *row {
	r := new(row)
	for k := range r {
		r[k] = never
	}
	r[CreateAsked], r[StartAsked], r[KillAsked] = create, start, kill
	r[PauseAsked], r[ResumeAsked], r[UpdateAsked] = pause, resume, update
	r[CheckpointAsked], r[DeleteAsked] = checkpoint, del
	return r
}

// on is the row with one more cell written.
func on(r *row, k Kind, c cell) *row { r[k] = c; return r }

// alive is a row of a container that has a process: it may exit and it may be
// struck by the OOM killer.
func alive(r *row, exited func(*Machine, Event)) *row {
	return on(on(r, Exited, do(exited)), OutOfMemory, do(announceOOM))
}

// late is a row of a container whose init is dead: a pause or resume that was
// under way then may still answer.
func late(r *row) *row {
	for _, k := range []Kind{Paused, PauseFailed, Resumed, ResumeFailed} {
		r[k] = nothing
	}
	return on(r, OutOfMemory, nothing)
}

var (
	created = refuse(errExists)
	accept  = nothing // asked for and allowed; the state stays as it is
)

// execGate is rules.execGate.
var execGate = [numStates]gate{
	Absent: shut(errNotCreated), Creating: shut(errNotCreated), Waiting: shut(errNotStarted),
	Deferring: shut(errNotStarted), Starting: shut(errNotStarted), StartingExited: shut(errNoInit),
	Restoring: shut(errNotStarted), StartBroken: shut(errNotStarted), RestoreBroken: shut(errNotStarted),
	Running: {}, Pausing: shut(errPaused), Frozen: shut(errPaused), Resuming: shut(errPaused),
	Condemned: shut(errNotStarted), Exiting: {start: errNoInit}, Stopped: shut(errNoInit),
	Deleting: shut(errNoInit), Gone: shut(errNotCreated),
}

// initTable is rules.init.
func initTable() [numStates]*row {
	return [numStates]*row{
		Absent: on(asked(do(beginCreate), refuse(errNotCreated), refuse(errNotCreated), refuse(errNotCreated),
			refuse(errNotCreated), refuse(errNotCreated), refuse(errNotCreated), refuse(errNotCreated)),
			OutOfMemory, nothing),
		Creating: on(on(on(asked(created, refuse(errNotCreated), refuse(errNotCreated), refuse(errNotCreated),
			refuse(errNotCreated), refuse(errNotCreated), refuse(errNotCreated), refuse(errNotCreated)),
			Created, do(endCreate)), CreateFailed, do(forget)), OutOfMemory, nothing),
		Waiting: alive(asked(created, do(to(Starting)), accept, refuse(errNotStarted),
			refuse(errNotPaused), accept, refuse(errNotStarted), do(condemn)), exit),
		Deferring: on(asked(created, do(to(Restoring)), refuse(errNoProcess), refuse(errNoProcess),
			refuse(errNotPaused), refuse(errNoProcess), refuse(errNoProcess), do(abandon)), OutOfMemory, nothing),
		Starting: on(on(alive(asked(created, refuse(errStarting), accept, refuse(errStarting),
			refuse(errNotPaused), accept, refuse(errStarting), refuse(errStillRunning)), holdExit),
			Started, do(endStart)), StartFailed, do(to(StartBroken))),
		StartingExited: on(on(on(asked(created, refuse(errStarting), refuse(errFinished), refuse(errStarting),
			refuse(errNotPaused), refuse(errNotRunning), refuse(errStarting), refuse(errStillRunning)),
			Started, do(endStartExited)), StartFailed, do(beginExit)), OutOfMemory, do(announceOOM)),
		Restoring: on(on(on(asked(created, refuse(errStarting), refuse(errNoProcess), refuse(errStarting),
			refuse(errNotPaused), refuse(errNoProcess), refuse(errStarting), refuse(errStillRunning)),
			Started, do(endRestore)), StartFailed, do(failRestore)), OutOfMemory, do(announceOOM)),
		StartBroken: alive(asked(created, refuse(errStartFailed), accept, refuse(errNotStarted),
			refuse(errNotPaused), refuse(errNotStarted), refuse(errNotStarted), do(condemn)), exit),
		RestoreBroken: on(asked(created, refuse(errStartFailed), refuse(errNoProcess), refuse(errNoProcess),
			refuse(errNotPaused), refuse(errNoProcess), refuse(errNoProcess), do(to(Deleting))), OutOfMemory, nothing),
		Running: alive(asked(created, refuse(errStarted), accept, do(to(Pausing)),
			refuse(errNotPaused), accept, accept, refuse(errStillRunning)), exit),
		Pausing: on(on(alive(asked(created, refuse(errStarted), accept, refuse(errPaused),
			refuse(errNotPaused), accept, refuse(errPaused), refuse(errStillRunning)), exit),
			Paused, do(endPause)), PauseFailed, do(to(Running))),
		Frozen: alive(asked(created, refuse(errStarted), accept, refuse(errPaused),
			do(to(Resuming)), accept, accept, refuse(errStillRunning)), exit),
		Resuming: on(on(alive(asked(created, refuse(errStarted), accept, refuse(errPaused),
			refuse(errPaused), accept, refuse(errPaused), refuse(errStillRunning)), exit),
			Resumed, do(endResume)), ResumeFailed, do(to(Frozen))),
		Condemned: alive(asked(created, refuse(errCondemned), accept, refuse(errNotStarted),
			refuse(errNotPaused), refuse(errCondemned), refuse(errNotStarted), do(condemn)), exit),
		Exiting: on(on(on(on(on(on(late(asked(created, refuse(errExited), refuse(errFinished), refuse(errNotRunning),
			refuse(errNotPaused), refuse(errNotRunning), refuse(errNotRunning), doUnless(showsRunning, askAgain))),
			Paused, do(latePause)), PauseFailed, do(latePause)), KillAllDone, doUnless(notKillingAny, endKillAll)),
			KillAllFailed, doUnless(notKillingAny, failKillAll)), Looked, doUnless(notLooking, endExit)), OutOfMemory, do(announceOOM)),
		Stopped: late(asked(created, refuse(errExited), refuse(errFinished), refuse(errNotRunning),
			refuse(errNotPaused), refuse(errNotRunning), refuse(errNotRunning), do(to(Deleting)))),
		Deleting: on(on(late(asked(created, refuse(errExited), refuse(errFinished), refuse(errNotRunning),
			refuse(errNotPaused), refuse(errNotRunning), refuse(errNotRunning), refuse(ErrDeleting))),
			Deleted, do(endDelete)), DeleteFailed, do(failDelete)),
		Gone: late(asked(refuse(errNotCreated), refuse(errNotCreated), refuse(errNotCreated), refuse(errNotCreated),
			refuse(errNotCreated), refuse(errNotCreated), refuse(errNotCreated), refuse(errNotCreated))),
	}
}

// execTable is rules.exec.
func execTable() [numExecStates]*row {
	return [numExecStates]*row{
		ExecAbsent: on(on(execAsked(doExec(addExec), refuse(errNoExec), refuse(errNoExec), refuse(errNoExec)),
			Deleted, nothing), Exited, never),
		ExecAdded: execAsked(refuse(errExists), doExec(beginExec), refuse(errNotStarted), doExec(deleteAdded)),
		ExecStarting: on(on(execAsked(refuse(errExists), refuse(errStarting), refuse(errStarting), refuse(errStillRunning)),
			Started, doExec(endExecStart)), StartFailed, doExec(failExecStart)),
		ExecBroken: execAsked(refuse(errExists), refuse(errStartFailed), refuse(errNotStarted), doExec(deleteExec)),
		ExecRunning: on(execAsked(refuse(errExists), refuse(errStarted), accept, refuse(errStillRunning)),
			Exited, doExec(exitExec)),
		ExecExited: execAsked(refuse(errExists), refuse(errExited), refuse(errFinished), doExec(deleteExec)),
		ExecDeleting: on(execAsked(refuse(errExists), refuse(errExited), refuse(errFinished), refuse(ErrDeleting)),
			Deleted, doExec(dropExec)),
	}
}

// shut lets no exec pass.
func shut(err error) gate { return gate{add: err, start: err} }

// execAsked is the row of an exec with the answers to what clients ask of it.
// What only the container can be asked is never asked of an exec.
func execAsked(add, start, kill, del cell) *row {
	r := asked(never, start, kill, never, never, never, never, del)
	r[ExecAsked] = add
	return r
}

// IsContract says whether err means that the caller broke the contract.
func IsContract(err error) bool { return errors.Is(err, ErrContract) }
