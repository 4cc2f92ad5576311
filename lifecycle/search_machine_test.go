package lifecycle

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// violation is a promise that was broken.
type violation struct {
	// rule names it: a number is an invariant's.
	rule string
	text string
}

func (v *violation) String() string { return "invariant " + v.rule + ": " + v.text }

// search plays the world against the rules.
type search struct {
	rules *rules
	// execs is how many of the execs take part.
	execs int
	// apart keeps states apart that differ only in which exec is which.
	apart bool
	// hit counts how often each cell was used, by the state and the event.
	hit     [numStates][numKinds]int
	hitExec [numExecStates][numKinds]int
	hitGate [numStates]int

	// scratch is the machine that every state is played on, and its execs.
	scratch Machine
	spare   [maxExecs]exec
	// now is the step being taken, was the state before it, cur the state after.
	now step
	was world
	cur world
	bad *violation
	// again: the machine answered AskAgain.
	again bool
	// oom: an OOM kill was announced.
	oom bool
}

func newSearch(r *rules, execs int) *search {
	s := &search{rules: r, execs: execs}
	s.scratch.execs = make(map[Proc]*exec, maxExecs)
	return s
}

// fail notes the first promise that the step breaks.
func (s *search) fail(rule, format string, args ...any) {
	if s.bad == nil {
		s.bad = &violation{rule: rule, text: fmt.Sprintf(format, args...)}
	}
}

// load makes the machine of a state.
func (s *search) load(w *world) *Machine {
	m := &s.scratch
	clear(m.execs)
	*m = Machine{
		rules: s.rules, state: w.state, shared: w.shared, deferred: w.deferred,
		killing: w.killing, looking: w.looking, started: w.startedMachine, execs: m.execs, out: m.out[:0],
	}
	if w.hasPid {
		m.pid = initPid
	}
	if w.hasExit {
		m.exit = theInit.exit()
	}
	for i := range w.execs {
		img := &w.execs[i]
		if img.state == ExecAbsent {
			continue
		}
		e := &s.spare[i]
		*e = exec{id: execIDs[i], state: img.state}
		if img.hasPid {
			e.pid = who(i).pid()
		}
		if img.hasExit {
			e.exit = who(i).exit()
		}
		m.execs[e.id] = e
	}
	return m
}

// save takes the machine's image into w.
func (s *search) save(w *world) {
	m := &s.scratch
	w.state, w.shared, w.deferred = m.state, m.shared, m.deferred
	w.killing, w.looking, w.startedMachine = m.killing, m.looking, m.started
	w.hasPid, w.hasExit = m.pid != 0, m.exit != Exit{}
	s.mustBe(theInit, m.pid, m.exit)
	for i := range w.execs {
		img, e := &w.execs[i], m.execs[execIDs[i]]
		if e == nil {
			img.state, img.hasPid, img.hasExit = ExecAbsent, false, false
			continue
		}
		img.state, img.hasPid, img.hasExit = e.state, e.pid != 0, e.exit != Exit{}
		s.mustBe(who(i), e.pid, e.exit)
	}
}

// mustBe: status and pid belong to that process and no other.
func (s *search) mustBe(p who, pid int, exit Exit) {
	if (pid != 0 && pid != p.pid()) || (exit != Exit{} && exit != p.exit()) {
		s.fail("2", "%q has the pid %d and the exit status %d of another process", p.id(), pid, exit.Status)
	}
}

// take takes one step from w. The violation is nil if nothing was broken.
func (s *search) take(w *world, st step) (world, *violation) {
	s.was, s.cur, s.now, s.bad, s.again, s.oom = *w, *w, st, nil, false, false
	switch st.op {
	case opAsk:
		s.ask()
	case opTell:
		s.tell()
	default:
		s.cur.happen(st)
	}
	if s.bad == nil {
		s.inState()
	}
	if !s.apart {
		s.cur.settleSymmetry()
	}
	return s.cur, s.bad
}

// event is the event of the step being taken.
func (s *search) event() Event {
	st := s.now
	ev := Event{Kind: st.kind, Proc: st.who.id(), Shared: st.shared, Deferred: st.deferred, OOM: st.oom}
	switch st.kind {
	case Created, Started:
		ev.Pid = st.who.pid()
	case Exited:
		ev.Exit = st.who.exit()
	}
	return ev
}

// step steps the machine and notes which cell it used.
func (s *search) step() ([]Effect, error) {
	w, st := &s.was, s.now
	if st.who == theInit {
		s.hit[w.state][st.kind]++
	} else {
		s.hitExec[w.execs[st.who].state][st.kind]++
		s.hitGate[w.state]++
	}
	return s.load(w).Step(s.event())
}

// ask steps the machine with what a client asks, which it may refuse.
func (s *search) ask() {
	effects, err := s.step()
	if err != nil {
		s.save(&s.cur)
		s.refused(err)
		return
	}
	// What the acceptance begins has begun before its effects are looked at.
	for _, e := range effects {
		s.again = s.again || e.Kind == AskAgain
	}
	s.accepted()
	s.observe(effects)
	if s.again && !s.cur.killInit && s.cur.proc == living {
		s.fail("16 (W3)", "who deletes a created init is told to wait for its exit, and nobody kills it")
	}
	s.save(&s.cur)
}

// tell steps the machine with an outcome, which it must take.
func (s *search) tell() {
	st := s.now
	if st.kind == Exited {
		if st.who == theInit {
			s.cur.proc = told
		} else {
			s.cur.execs[st.who].proc = told
		}
	}
	effects, err := s.step()
	if err != nil {
		s.fail("totality", "%v is out of contract, but it happens: %v", st.kind, err)
		return
	}
	s.answered()
	s.observe(effects)
	s.save(&s.cur)
	s.wereTold()
}

// answered takes what was reported out of the world.
func (s *search) answered() {
	c, st := &s.cur, s.now
	switch st.kind {
	case Created, CreateFailed, Started, StartFailed:
		s.callEnded()
	case Paused, PauseFailed, Resumed, ResumeFailed:
		c.freeze = noCall
	case Deleted, DeleteFailed:
		if st.who == theInit {
			c.call = noCall
		} else {
			c.execs[st.who].call = noCall
		}
	case KillAllDone, KillAllFailed:
		c.killAll = noTask
	case Looked:
		c.look = reported
	}
}

// callEnded: create, start, restore or exec has ended.
func (s *search) callEnded() {
	c, failed := &s.cur, s.now.kind == StartFailed
	if s.now.who != theInit {
		e := &c.execs[s.now.who]
		e.call, e.failed = noCall, failed
		return
	}
	c.call, c.failed = noCall, failed
	if failed && c.deferred { // nothing is left of a failed restore
		c.ran, c.leftover = false, false
	}
}

// accepted begins what the machine allowed, after looking whether it should have.
func (s *search) accepted() {
	c, st := &s.cur, s.now
	if st.who != theInit {
		s.acceptedExec(&c.execs[st.who])
		return
	}
	switch st.kind {
	case CreateAsked:
		if c.call != noCall || c.created || c.forgotten {
			s.fail("22", "a second create is accepted")
		}
		c.call, c.shared, c.deferred = inCreate, st.shared, st.deferred
	case StartAsked:
		s.acceptedStart()
	case KillAsked, PauseAsked, ResumeAsked, UpdateAsked, CheckpointAsked:
		if !c.takes(st.kind) {
			s.fail("row 17", "%v is accepted", st.kind)
		}
		switch st.kind {
		case PauseAsked:
			c.freeze = inPause
		case ResumeAsked:
			c.freeze = inResume
		}
	case DeleteAsked:
		s.acceptedDelete()
	}
}

// takes says what a container may be asked that changes nothing in its life: what
// is not known to be dead, and stands as it has to.
func (w *world) takes(k Kind) bool {
	restoring := w.deferred && !w.started
	if !w.created || w.forgotten || w.exited || w.proc == told || restoring {
		return false
	}
	switch k {
	case PauseAsked:
		return w.started && !w.paused && w.freeze == noCall
	case ResumeAsked:
		return w.paused && w.freeze == noCall
	case UpdateAsked:
		return !w.failed && !w.condemned
	case CheckpointAsked:
		return w.started && w.freeze == noCall
	}
	return k == KillAsked
}

// takesNewExecs says whether an exec may be added: to what clients are told is
// running.
func (w *world) takesNewExecs() bool {
	return w.started && !w.exited && (w.proc == told || !w.paused && w.freeze == noCall)
}

// takesExecs says whether an exec may be started.
func (w *world) takesExecs() bool {
	return w.started && !w.exited && w.proc != told && !w.paused && w.freeze == noCall
}

func (s *search) acceptedStart() {
	c := &s.cur
	switch {
	case c.call != noCall || !c.created || c.started || c.exited:
		s.fail("row 13", "a second start is accepted")
	case c.failed:
		s.fail("10", "a start is accepted after one that failed")
	}
	if c.deferred {
		c.call = inRestore
		return
	}
	c.call, c.ran = inStart, true
}

func (s *search) acceptedDelete() {
	c := &s.cur
	if s.again {
		c.condemned = true
		if c.started || c.proc == noProc || c.exited {
			s.fail("16", "condemned, and it is not a created process")
		}
		return
	}
	switch {
	case c.call == inStart || c.call == inCreate || c.call == inRestore || c.call == failing:
		s.fail("20", "a delete is accepted while a start is under way")
	case c.call != noCall || !c.created || c.forgotten:
		s.fail("row 16", "a second delete is accepted")
	case c.proc != noProc && !c.exited:
		s.fail("16 (W3)", "a delete is accepted before the exit of init is announced")
	}
	for i := range c.execs {
		if e := &c.execs[i]; e.proc != noProc && !e.exited {
			s.fail("21", "a delete is accepted before the exit of exec %q is announced", execIDs[i])
		}
	}
	c.call = inDelete
}

func (s *search) acceptedExec(e *execWorld) {
	c := &s.cur
	switch s.now.kind {
	case ExecAsked:
		if e.added {
			s.fail("22", "a second exec of the same id is accepted")
		}
		if !c.takesNewExecs() {
			s.fail("4", "an exec is added, and the container is not said to run")
		}
	case StartAsked:
		switch {
		case !c.takesExecs():
			s.fail("4", "an exec is started, and init is not running")
		case e.failed:
			s.fail("11 (W10)", "a second start of an exec is accepted whose start has failed")
		case e.call != noCall || !e.added || e.started:
			s.fail("row 13", "a second start of an exec is accepted")
		}
		e.call = inStart
	case KillAsked:
		if !e.started || e.exited {
			s.fail("19", "a kill of an exec is accepted that does not run")
		}
	case DeleteAsked:
		switch {
		case e.call == inStart || e.call == failing || (e.proc != noProc && !e.exited):
			s.fail("20", "the delete of a running exec is accepted")
		case e.call != noCall || !e.added:
			s.fail("row 16", "a second delete of an exec is accepted")
		}
		e.call = inDelete
	}
}

// refused looks whether a client was rightly refused, and in the right words.
func (s *search) refused(err error) {
	c, st := &s.cur, s.now
	switch {
	case IsContract(err):
		s.fail("totality", "%v of %q is out of contract, but a client may ask it: %v", st.kind, st.who.id(), err)
	case s.cur != s.was:
		s.fail("totality", "a refused step has changed the machine")
	case !errors.Is(err, ErrAbsent) && !errdefs.IsAlreadyExists(err) && !errdefs.IsFailedPrecondition(err):
		s.fail("totality", "a refusal without a class: %v", err)
	}
	if st.who != theInit {
		s.refusedExec(&c.execs[st.who], err)
		return
	}
	switch {
	case c.forgotten && !errors.Is(err, ErrAbsent):
		s.fail("row 16", "what is deleted is not NotFound: %v", err)
	case st.kind == CreateAsked && !c.forgotten && !errdefs.IsAlreadyExists(err):
		s.fail("22", "a second create is not refused with AlreadyExists: %v", err)
	case st.kind == KillAsked && c.takes(st.kind):
		s.fail("19", "a kill is lost while init may live: %v", err)
	case c.takes(st.kind):
		s.fail("totality", "%v is refused: %v", st.kind, err)
	case st.kind == DeleteAsked && c.created && !c.started && c.call == noCall && !c.forgotten:
		s.fail("16 (W3)", "the delete of what never ran is refused: %v", err)
	case st.kind == DeleteAsked && c.exited && c.call == noCall && !c.forgotten:
		s.fail("16", "a stopped container cannot be deleted: %v", err)
	}
}

func (s *search) refusedExec(e *execWorld, err error) {
	c := &s.cur
	dead := c.proc == told && c.exited && !c.forgotten
	switch k := s.now.kind; {
	case k == ExecAsked && e.added && !errdefs.IsAlreadyExists(err):
		s.fail("22", "a second exec of the same id is not refused with AlreadyExists: %v", err)
	case k == ExecAsked && !e.added && dead && !errdefs.IsFailedPrecondition(err):
		s.fail("4", "an exec after init's death is not refused with FailedPrecondition: %v", err)
	case k == StartAsked && e.added && !errdefs.IsFailedPrecondition(err):
		s.fail("4", "a start of an exec is not refused with FailedPrecondition: %v", err)
	case k == ExecAsked && !e.added && c.takesNewExecs(),
		k == StartAsked && e.added && !e.started && !e.failed && e.call == noCall && c.takesExecs():
		s.fail("totality", "%v of an exec is refused: %v", k, err)
	case k == KillAsked && e.started && e.proc != told:
		s.fail("19", "a kill of a running exec is lost: %v", err)
	}
}
