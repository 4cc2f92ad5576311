package lifecycle

// The world that the search plays against a Machine: what the kernel, the
// runtime and the clients may do, whatever the machine believes. It is kept
// apart from the machine's own view on purpose, so that a machine that is wrong
// about the world is found out.
//
// In it: clients that ask anything at any moment, twice too; a runtime whose every
// call succeeds, fails or hangs for as long as anything else happens, forks before
// it fails, says that it has started what is dead and that it has not started what
// runs; handlers that panic and clients that go while a call of theirs is under way;
// killing that fails as often as it likes; processes that die at any moment; their waiters, who reap them and tell
// the machine later, in any order; both kinds of pid namespaces, with what the
// kernel does when init dies in one of its own; processes left behind; forks into
// a container whose init is dead; a cgroup that is frozen; the OOM killer.
//
// Not in it, because the rules cannot see it: pids that are used again, the copying
// of output, the queue of announcements, the caller's locks (a Step is atomic), and
// a caller that breaks the contract, which is for FuzzEvents.

// maxExecs is how many execs the world has at most. Two are enough for every
// race between execs that is known, one that is late and one that is later; the
// third is there to show that nothing new comes with it.
const maxExecs = 3

// The pids of the world. The exit status of a process is its pid, so that an
// exit that is told of the wrong process shows.
const (
	initPid  = 100
	execPid0 = 101
)

// who is a process: init, or the index of an exec.
type who int8

const theInit who = -1

var execIDs = [maxExecs]Proc{"a", "b", "c"}

func (p who) id() Proc {
	if p == theInit {
		return Init
	}
	return execIDs[p]
}

func (p who) pid() int { return execPid0 + int(p) }

func (p who) exit() Exit { return Exit{Status: uint32(p.pid())} }

// proc is where a process stands in the kernel, and on the way from there to the
// machine.
type proc uint8

const (
	noProc proc = iota
	living
	zombie
	// reaped: its waiter has taken it, the machine was not told yet.
	reaped
	// told: the machine was told.
	told
)

// call is a runtime call under way. As long as it is under way it hangs; every
// interleaving with a late answer is one with a hung call.
type call uint8

const (
	noCall call = iota
	inCreate
	// inStart is `start` of a created init, or `exec` of an exec.
	inStart
	inRestore
	// failing: create, restore or exec has failed or was killed at its deadline, and
	// what it forked is being killed and reaped before the failure is reported.
	failing
	inDelete
	inPause
	inResume
)

// task is how far a slow effect has come.
type task uint8

const (
	noTask task = iota
	// begun under the lock, not yet done.
	begun
	// carried out, not yet reported.
	done
	// the machine was told.
	reported
	// broken: it failed, or what carried it out panicked; not yet reported.
	broken
)

// execWorld is one exec: the machine's image of it, the world's, and what the
// observer has seen of it.
type execWorld struct {
	// The machine's.
	state           ExecState
	hasPid, hasExit bool
	// The world's.
	call    call
	proc    proc
	watched bool
	// The observer's: what was announced, and whether its start has failed.
	added, started, exited, released, failed bool
}

// world is one state of the search: the image of the machine, the world around
// it, and the observer of the announcements. It is comparable, and holds no
// time: nothing in the rules depends on one.
type world struct {
	// The machine's.
	state            State
	killing          killing
	shared, deferred bool
	looking          bool
	startedMachine   bool
	hasPid, hasExit  bool
	// The world's.
	call, freeze call
	proc         proc
	watched      bool
	// ran: init may run the user's code, so it may leave processes behind.
	ran bool
	// leftover: processes that are nobody's live in the container: daemons that
	// init or an exec left behind, adopted by somebody outside.
	leftover bool
	// frozen: the container's cgroup is, and as in cgroup v1 nothing in it can be
	// forked, die or be killed. Who kills everything thaws it first.
	frozen   bool
	killAll  task
	killInit bool
	look     task
	// The observer's.
	created, started, exited, deleted, released, paused, failed, condemned, forgotten bool

	execs [maxExecs]execWorld
}

// op is what kind of step the world takes.
type op uint8

const (
	// opAsk: a client asks, opTell: an outcome is reported or something is observed.
	// Both step the machine.
	opAsk op = iota
	opTell
	// The rest happens in the kernel and the machine does not see it.
	opFork
	opDie
	opReap
	// opFail: a runtime call fails, or is killed at its deadline; or its handler
	// panics, or its client has gone, so that what it began is undone.
	opFail
	// opPanic: the handler of a start of init panics. Whether init runs is not known
	// then, and it is killed.
	opPanic
	// opKillAll and opKillInit: what the machine asked for is carried out.
	// opKillAllFails: it is not, and what lives or is frozen stays so.
	opKillAllFails
	opKillAll
	opKillInit
	// opSpawn and opVanish: a process is left behind, and ends by itself.
	opSpawn
	opVanish
	// opFreeze and opThaw: the pause or resume under way takes hold. It may do so and
	// fail, or hang for long after it.
	opFreeze
	opThaw
)

// step is one thing that the world may do.
type step struct {
	op   op
	kind Kind
	who  who
	// shared, deferred, oom are those of the event.
	shared, deferred, oom bool
	// must: it happens if nothing else does. Not so what clients ask, the OOM killer,
	// and what processes do by themselves: those may run for ever.
	must bool
}

// execAlive says whether the process of an exec can be killed.
func (w *world) execAlive() bool {
	for i := range w.execs {
		if w.execs[i].proc == living {
			return true
		}
	}
	return false
}

// execStarting says whether a runtime call is at work in the container, of which
// something may be left behind that the shim never hears of.
func (w *world) execStarting() bool {
	for i := range w.execs {
		if c := w.execs[i].call; (c == inStart || c == failing) && (w.shared || w.proc == living) {
			return true
		}
	}
	return false
}

// execUnreaped says whether a process of an exec keeps a private init from being
// reaped.
func (w *world) execUnreaped() bool {
	for i := range w.execs {
		if p := w.execs[i].proc; p == living || p == zombie {
			return true
		}
	}
	return false
}

// die ends a process. With the init of a pid namespace of its own the kernel ends
// all the others at once.
func (w *world) die(p who) {
	if p != theInit {
		w.execs[p].proc = zombie
		return
	}
	w.proc = zombie
	if !w.shared {
		w.killRest()
	}
}

// killRest ends all that is alive in the container but init.
func (w *world) killRest() {
	w.leftover = false
	for i := range w.execs {
		if w.execs[i].proc == living {
			w.execs[i].proc = zombie
		}
	}
}

// steps lists everything that may happen next.
func (w *world) steps(out []step, execs int) []step {
	out = w.initAsks(out[:0])
	out = w.initAnswers(out)
	out = w.initKernel(out)
	for i := range execs {
		out = w.execSteps(out, who(i))
	}
	return out
}

// initAsks is what clients may ask of the container: all of it, always.
func (w *world) initAsks(out []step) []step {
	out = append(out, step{op: opAsk, kind: CreateAsked, who: theInit})
	if w.state == Absent {
		out = append(out,
			step{op: opAsk, kind: CreateAsked, who: theInit, shared: true},
			step{op: opAsk, kind: CreateAsked, who: theInit, deferred: true},
			step{op: opAsk, kind: CreateAsked, who: theInit, shared: true, deferred: true})
	}
	for _, k := range []Kind{StartAsked, KillAsked, PauseAsked, ResumeAsked, UpdateAsked, CheckpointAsked, DeleteAsked} {
		out = append(out, step{op: opAsk, kind: k, who: theInit})
	}
	return out
}

// initAnswers is what the calls of the container may answer.
func (w *world) initAnswers(out []step) []step {
	tell := func(k Kind) { out = append(out, step{op: opTell, kind: k, who: theInit, must: true}) }
	fail := func() { out = append(out, step{op: opFail, who: theInit, must: true}) }
	switch w.call {
	case inCreate:
		// A deferred create calls no runtime; any other has forked init if it succeeds.
		if w.deferred || w.proc != noProc {
			tell(Created)
		}
		fail()
	case inRestore:
		if w.proc != noProc {
			tell(Started)
		}
		fail()
	case failing:
		if w.proc == noProc {
			if w.created {
				tell(StartFailed)
			} else {
				tell(CreateFailed)
			}
		}
	case inStart: // whatever became of init meanwhile
		tell(Started)
		tell(StartFailed)
		out = append(out, step{op: opPanic, who: theInit})
	case inDelete:
		tell(Deleted)
		tell(DeleteFailed)
	}
	return w.slowAnswers(out)
}

// slowAnswers is what a pause or resume and the slow effects may answer.
func (w *world) slowAnswers(out []step) []step {
	tell := func(k Kind) { out = append(out, step{op: opTell, kind: k, who: theInit, must: true}) }
	switch w.freeze {
	case inPause:
		tell(Paused)
		tell(PauseFailed)
	case inResume:
		tell(Resumed)
		tell(ResumeFailed)
	}
	if w.look == begun {
		tell(Looked)
		out = append(out, step{op: opTell, kind: Looked, who: theInit, oom: true, must: true})
	}
	switch w.killAll {
	case begun:
		// It may fail again and again, but not for ever.
		out = append(out, step{op: opKillAll, who: theInit, must: true}, step{op: opKillAllFails, who: theInit})
	case done:
		tell(KillAllDone)
	case broken:
		tell(KillAllFailed)
	}
	return append(out, step{op: opTell, kind: OutOfMemory, who: theInit})
}

// initKernel is what may become of init and of what it leaves behind.
func (w *world) initKernel(out []step) []step {
	switch w.proc {
	case noProc:
		if (w.call == inCreate && !w.deferred) || w.call == inRestore {
			out = append(out, step{op: opFork, who: theInit})
		}
	case living:
		// By itself, or killed by a client; what a failed call left is killed surely.
		if !w.frozen {
			out = append(out, step{op: opDie, who: theInit, must: w.call == failing})
		}
	case zombie:
		// The first process of a pid namespace cannot be reaped before all the others.
		if (w.watched || w.call == failing) && (w.shared || !w.execUnreaped()) {
			out = append(out, step{op: opReap, who: theInit, must: true})
		}
	case reaped:
		out = append(out, step{op: opTell, kind: Exited, who: theInit, must: true})
	}
	if w.killInit && !w.frozen {
		out = append(out, step{op: opKillInit, who: theInit, must: true})
	}
	switch {
	case w.freeze == inPause && !w.frozen:
		out = append(out, step{op: opFreeze, who: theInit})
	case w.freeze == inResume && w.frozen:
		out = append(out, step{op: opThaw, who: theInit})
	}
	switch {
	case w.frozen:
	case w.leftover:
		out = append(out, step{op: opVanish, who: theInit})
	case (w.ran && w.proc == living && w.call != failing) || w.execAlive() || w.execStarting():
		out = append(out, step{op: opSpawn, who: theInit})
	}
	return out
}

// execSteps is all that may happen to one exec.
func (w *world) execSteps(out []step, p who) []step {
	e := &w.execs[p]
	for _, k := range []Kind{ExecAsked, StartAsked, KillAsked, DeleteAsked} {
		out = append(out, step{op: opAsk, kind: k, who: p})
	}
	tell := func(k Kind) { out = append(out, step{op: opTell, kind: k, who: p, must: true}) }
	switch e.call {
	case inStart:
		if e.proc != noProc {
			tell(Started)
		} else if (w.shared || w.proc == living) && !w.frozen {
			// No fork succeeds in a pid namespace whose first process is dead. In a shared
			// one it does, long after init's death (W18).
			out = append(out, step{op: opFork, who: p})
		}
		out = append(out, step{op: opFail, who: p, must: true})
	case failing:
		if e.proc == noProc {
			tell(StartFailed)
		}
	case inDelete:
		tell(Deleted)
	}
	switch e.proc {
	case living:
		if !w.frozen {
			out = append(out, step{op: opDie, who: p, must: e.call == failing})
		}
	case zombie:
		if e.watched || e.call == failing {
			out = append(out, step{op: opReap, who: p, must: true})
		}
	case reaped:
		tell(Exited)
	}
	return out
}

// happen carries out a step that the machine does not see.
func (w *world) happen(s step) {
	p, c := &w.proc, &w.call
	if s.who != theInit {
		p, c = &w.execs[s.who].proc, &w.execs[s.who].call
	}
	switch s.op {
	case opFork:
		*p = living
		if s.who == theInit && *c == inRestore {
			w.ran = true
		}
	case opDie:
		w.die(s.who)
	case opReap:
		*p = reaped
		if *c == failing { // by who failed, not by a waiter: nobody is told
			*p = noProc
		}
	case opFail:
		*c = failing
	case opPanic:
		w.killInit = w.proc == living
	case opKillAllFails:
		w.killAll = broken
	case opKillAll:
		w.frozen = false
		w.killRest()
		w.killAll = done
	case opKillInit:
		w.killInit = false
		if w.proc == living {
			w.die(theInit)
		}
	case opSpawn:
		w.leftover = true
	case opVanish:
		w.leftover = false
	case opFreeze, opThaw:
		w.frozen = s.op == opFreeze
	}
}
