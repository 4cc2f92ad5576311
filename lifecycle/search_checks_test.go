package lifecycle

// The promises: what the observer says of the effects of one step, of every
// state, and of every state in which nothing has to happen any more. Each is
// named by the number of the invariant, or by the name of the race that showed
// that it is needed.

// observe follows the effects of a step in their order, as the caller carries
// them out.
func (s *search) observe(effects []Effect) {
	for _, e := range effects {
		if s.cur.forgotten {
			s.fail("16", "%v %v after the container was forgotten", e.Kind, e.Topic)
		}
		p := whoOf(e.Proc)
		switch e.Kind {
		case Announce:
			s.announced(e, p)
		case Watch:
			s.watch(p)
		case Release:
			s.release(p)
		case KillAll:
			if s.cur.killAll != noTask || s.cur.proc != told {
				s.fail("6", "killing what is left while init lives or while it is under way")
			}
			s.cur.killAll = begun
		case LastLook:
			if s.cur.look != noTask || s.cur.proc != told {
				s.fail("17", "the last look is not the last, or not one")
			}
			s.cur.look = begun
		case KillInit:
			s.cur.killInit = true
		case AskAgain:
			if s.now.kind != DeleteAsked {
				s.fail("16", "nobody is there to ask again")
			}
		case Forget:
			s.cur.forgotten = true
			s.forget()
		}
	}
}

func whoOf(p Proc) who {
	for i := range execIDs {
		if execIDs[i] == p {
			return who(i)
		}
	}
	return theInit
}

// announced follows one announcement.
func (s *search) announced(e Effect, p who) {
	c := &s.cur
	s.mustBe(p, e.Pid, e.Exit)
	switch {
	case e.Topic != TopicCreate && !c.created:
		s.fail("1", "%v is announced before the creation", e.Topic)
	case c.exited && e.Topic == TopicOOM:
		s.fail("17", "an OOM kill is announced after the exit of init")
	case c.exited && e.Topic != TopicDelete && e.Topic != TopicCreate:
		s.fail("3", "%v of %q is announced after the exit of init", e.Topic, e.Proc)
	}
	switch e.Topic {
	case TopicOOM:
		s.oom = true
	case TopicCreate:
		s.announcedCreate(e)
	case TopicStart:
		s.announcedStart(e)
	case TopicExecAdded, TopicExecStarted:
		s.announcedExec(e, &c.execs[p])
	case TopicExit:
		s.announcedExit(e, p)
	case TopicPaused, TopicResumed:
		s.announcedFreeze(e)
	case TopicDelete:
		s.announcedDelete()
	}
}

func (s *search) announcedCreate(e Effect) {
	c := &s.cur
	if c.created {
		s.fail("1", "created twice")
	}
	if (e.Pid != 0) == c.deferred {
		s.fail("2", "created with pid %d", e.Pid)
	}
	c.created = true
}

func (s *search) announcedExit(e Effect, p who) {
	if e.Exit != p.exit() || e.Pid != p.pid() {
		s.fail("2", "the exit of %q is announced with another's status or pid", e.Proc)
	}
	if p == theInit {
		s.announcedInitExit()
		return
	}
	s.announcedExecExit(&s.cur.execs[p], p)
}

func (s *search) announcedFreeze(e Effect) {
	c := &s.cur
	on := e.Topic == TopicPaused
	switch {
	case on && (!c.started || c.paused || s.now.kind != Paused):
		s.fail("1", "paused is announced and it is not")
	case !on && (!c.paused || s.now.kind != Resumed):
		s.fail("1", "resumed is announced and it is not")
	}
	c.paused = on
}

func (s *search) announcedDelete() {
	c := &s.cur
	if c.deleted || s.now.kind != Deleted {
		s.fail("16", "deleted is announced and it is not")
	}
	if c.proc != noProc && !c.exited {
		s.fail("16 (W3)", "deleted before the exit was announced")
	}
	c.deleted = true
}

func (s *search) announcedStart(e Effect) {
	c := &s.cur
	switch {
	case c.started:
		s.fail("1", "started twice")
	case c.failed || s.now.kind != Started:
		s.fail("10", "a start is announced that the runtime says has failed, or has not told of")
	case e.Pid != initPid:
		s.fail("2", "started with pid %d", e.Pid)
	}
	c.started = true
}

func (s *search) announcedExec(e Effect, x *execWorld) {
	if e.Topic == TopicExecAdded {
		if x.added {
			s.fail("1", "exec %q is added twice", e.Proc)
		}
		x.added = true
		return
	}
	switch {
	case !x.added || x.started || x.exited:
		s.fail("1", "exec %q is started twice, or after its exit, or before it was added", e.Proc)
	case x.failed || s.now.kind != Started:
		s.fail("11", "the start of exec %q is announced that has failed", e.Proc)
	case e.Pid == 0:
		s.fail("2", "exec %q is started without a pid", e.Proc)
	}
	x.started = true
}

func (s *search) announcedExecExit(x *execWorld, p who) {
	switch {
	case !x.started:
		s.fail("1", "the exit of exec %q is announced before its start", p.id())
	case x.exited:
		s.fail("2", "the exit of exec %q is announced twice", p.id())
	case x.proc != told:
		s.fail("2", "the exit of exec %q is announced and it was not seen", p.id())
	}
	x.exited = true
}

// announcedInitExit is the heart of it: whatever was begun is over, everything is
// dead, and everybody was told.
func (s *search) announcedInitExit() {
	c := &s.cur
	switch {
	case s.now.kind == Started && !c.started:
		s.fail("1", "the exit of init is announced before its start")
	case c.exited:
		s.fail("2", "the exit of init is announced twice")
	case c.proc != told:
		s.fail("2", "the exit of init is announced and it was not seen")
	case c.call != noCall:
		s.fail("1", "the exit of init is announced while its start is under way")
	}
	for i := range c.execs {
		x := &c.execs[i]
		switch {
		case x.call == inStart || x.call == failing:
			s.fail("5", "the exit of init is announced while exec %q is being started", execIDs[i])
		case x.started && !x.exited:
			s.fail("3", "the exit of init is announced before that of exec %q", execIDs[i])
		case x.proc == living:
			s.fail("6 (W1, W18)", "the exit of init is announced and exec %q lives", execIDs[i])
		}
	}
	if c.leftover {
		s.fail("6 (W1, W18)", "the exit of init is announced and a process lives that was left behind")
	}
	if c.look != reported {
		s.fail("17", "the exit of init is announced without a last look for an OOM kill")
	}
	c.exited = true
}

// watch: nothing is waited for before it was announced, else its exit could be
// told first.
func (s *search) watch(p who) {
	c := &s.cur
	if p != theInit {
		x := &c.execs[p]
		if !x.started || x.watched {
			s.fail("1", "exec %q is waited for twice, or before its start is announced", p.id())
		}
		x.watched = true
		return
	}
	if !c.created || c.watched || (c.deferred && !c.started) {
		s.fail("1", "init is waited for twice, or before it is announced")
	}
	c.watched = true
}

// release: who waits goes on once, and after the announcement.
func (s *search) release(p who) {
	c := &s.cur
	released, exited, may := &c.released, c.exited, c.proc != noProc
	if p != theInit {
		x := &c.execs[p]
		released, exited, may = &x.released, x.exited, x.proc != noProc || x.call == inStart || x.call == failing
	}
	if *released {
		s.fail("11 (W10)", "those who wait for %q are released twice", p.id())
	}
	if !exited && may {
		s.fail("15 (W11)", "those who wait for %q are released before its exit is announced", p.id())
	}
	*released = true
}

// forget: nobody is left waiting for what is forgotten.
func (s *search) forget() {
	c := &s.cur
	for i := range c.execs {
		if x := &c.execs[i]; x.added && !x.released {
			s.fail("11", "the container is gone and somebody waits for exec %q", execIDs[i])
		}
		call := c.execs[i].call
		c.execs[i] = execWorld{}
		if call == inDelete { // its answer is still to come
			c.execs[i].call = call
		}
	}
	if c.created && !c.released {
		s.fail("11", "the container is gone and somebody waits for init")
	}
}

// wereTold: what was reported shows in the announcements of the same step, so
// that no answer of an RPC comes before its event.
func (s *search) wereTold() {
	c, st := &s.cur, s.now
	switch {
	case st.kind == Created && !c.created:
		s.fail("18", "created, and it is not announced")
	case st.kind == Started && st.who == theInit && !c.started:
		s.fail("18", "started, and it is not announced")
	case st.kind == Started && st.who != theInit && !c.execs[st.who].started:
		s.fail("18", "exec %q is started, and it is not announced", st.who.id())
	case st.kind == Looked && st.oom && !s.oom,
		st.kind == OutOfMemory && c.created && c.proc != noProc && !c.exited && !s.oom:
		s.fail("17", "an OOM kill is not announced")
	case st.kind == Deleted && st.who == theInit && !c.deleted:
		s.fail("16", "deleted, and it is not announced")
	case st.kind == Deleted && st.who != theInit && !c.forgotten:
		if x := &c.execs[st.who]; x.added && !x.released {
			s.fail("11", "exec %q is deleted and somebody waits for it", st.who.id())
		}
		x := &c.execs[st.who]
		*x = execWorld{state: x.state, hasPid: x.hasPid, hasExit: x.hasExit}
	}
}

// inState is what holds in every state.
func (s *search) inState() {
	c := &s.cur
	m := s.load(c)
	held := c.proc == told && !c.exited
	if held != (c.state == StartingExited || c.state == Exiting) {
		s.fail("2", "an exit that was seen and not announced is held in state %v", c.state)
	}
	s.visible(m, theInit, c.created && !c.forgotten, c.started, c.exited)
	for i := range c.execs {
		x := &c.execs[i]
		s.visible(m, who(i), x.added, x.started, x.exited)
	}
	if s.bad == nil && !c.busy() {
		s.quiet()
	}
}

// visible: clients see of a process what was announced of it, no less and no more.
func (s *search) visible(m *Machine, p who, exists, started, exited bool) {
	v, ok := m.View(p.id())
	switch {
	case ok != exists:
		s.fail("15", "%q is visible: %v, announced: %v", p.id(), ok, exists)
	case !ok:
	case (v.Status == StatusStopped) != exited:
		s.fail("15 (W11)", "%q shows as %v and its exit is announced: %v", p.id(), v.Status, exited)
	case exited && v.Exit != p.exit() || !exited && v.Exit != Exit{}:
		s.fail("2", "%q shows the exit status %d", p.id(), v.Exit.Status)
	case !exited && (v.Status != StatusCreated) != started:
		s.fail("15", "%q shows as %v and its start is announced: %v", p.id(), v.Status, started)
	}
}

// busy says whether something must still happen.
func (w *world) busy() bool {
	var buf [128]step
	for _, st := range w.steps(buf[:0], maxExecs) {
		if st.must {
			return true
		}
	}
	return false
}

// quiet: nothing is under way any more, so nothing may be owed.
func (s *search) quiet() {
	c := &s.cur
	dead := c.proc == zombie || c.proc == reaped || c.proc == told
	switch {
	case dead && !c.exited && c.shared && c.execAlive():
		s.fail("6 (W1, W18)", "init is dead, an exec lives in its stead, nobody kills it and nothing ends")
	case dead && !c.exited && !c.forgotten && !c.watched:
		s.fail("9", "init is dead, nobody waits for it and its exit is never announced")
	case dead && !c.exited && !c.forgotten:
		s.fail("2", "init is dead and its exit is never announced")
	case c.exited && !c.released:
		s.fail("11", "the exit of init is announced and somebody waits for it for ever")
	case c.failed && c.deferred && !c.released:
		s.fail("11", "the restore has failed and somebody waits for ever")
	case c.exited && (c.leftover || c.execAlive()):
		s.fail("6 (W1, W18)", "the container has ended and something of it lives")
	}
	for i := range c.execs {
		x := &c.execs[i]
		switch dead := x.proc == zombie || x.proc == reaped || x.proc == told; {
		case dead && !x.exited:
			s.fail("2", "exec %q is dead and its exit is never announced", execIDs[i])
		case (x.exited || x.failed) && !x.released:
			s.fail("11", "exec %q has ended or failed and somebody waits for it for ever", execIDs[i])
		}
	}
}

// settleSymmetry gives the states that differ only in which exec is which one
// form: the rules never look at an exec's id, they only compare it, so that what
// is true of one of them is true of the other.
func (w *world) settleSymmetry() {
	for i := 1; i < len(w.execs); i++ {
		for j := i; j > 0 && w.execs[j-1].rank() < w.execs[j].rank(); j-- {
			w.execs[j-1], w.execs[j] = w.execs[j], w.execs[j-1]
		}
	}
}

// rank is a number that is different for different execs.
func (x *execWorld) rank() uint64 {
	n := uint64(x.state)<<16 | uint64(x.call)<<12 | uint64(x.proc)<<8
	for _, b := range []bool{x.hasPid, x.hasExit, x.watched, x.added, x.started, x.exited, x.released, x.failed} {
		n <<= 1
		if b {
			n |= 1
		}
	}
	return n
}
