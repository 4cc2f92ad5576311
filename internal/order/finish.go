package order

// What the calls answered, and what is missing when everything has arrived.

import (
	"maps"
	"slices"
	"time"
)

// Call names the calls whose answers say something about the events.
type Call uint8

// The calls of the task API that the checker may be told of.
const (
	CallCreate Call = iota // Exec is empty
	CallExec               // the Exec call, which adds a process and starts none
	CallStart
	CallWait
	CallDelete
)

// Answer is what one call to the shim was answered. Only definite answers
// belong here: a call that ended by the caller's own deadline says nothing.
type Answer struct {
	Call      Call
	Container string
	Exec      string // empty for the init
	Failed    bool   // answered with an error; the rest is then ignored
	Pid       uint32 // Create, Start, Delete; 0 where it is not known
	Status    uint32 // Wait, Delete
	At        time.Time
}

// answers are the answers about one process, latest of each call.
type answers struct {
	create, exec, start, wait, del *Answer
	deleted                        bool
}

func (c *Checker) answersOf(container, exec string) *answers {
	k := key{container, exec}
	a := c.answers[k]
	if a == nil {
		a = &answers{}
		c.answers[k] = a
	}
	return a
}

// Answered notes an answer; Finish holds it against the events. Answers and
// events run on different connections, so neither is expected first. An id of
// a container should not be used again once answers about it were noted.
func (c *Checker) Answered(a Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.answersOf(a.Container, a.Exec)
	switch a.Call {
	case CallCreate:
		s.create = &a
	case CallExec:
		s.exec = &a
		s.deleted = false
	case CallStart:
		// A second start is refused; its refusal says nothing of the first.
		if s.start == nil || s.start.Failed {
			s.start = &a
		}
	case CallWait:
		if !a.Failed {
			s.wait = &a
		}
	case CallDelete:
		if !a.Failed {
			s.del = &a
			s.deleted = true
		}
	}
}

// Pending names the processes and containers of which something is still to
// come, sorted; it is empty when Finish would find nothing missing. Who drains
// a stream waits for that, within a bound.
func (c *Checker) Pending() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, v := range c.missing() {
		names = append(names, v.Text)
	}
	return names
}

// Finish is called once, when the stream has ended: it adds what is missing
// and where answers and events differ, and returns all violations of the run.
func (c *Checker) Finish() []Violation {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.finished {
		c.finished = true
		c.violations = append(c.violations, c.missing()...)
		c.contradictions()
	}
	return slices.Clone(c.violations)
}

// missing lists the events that should have come.
func (c *Checker) missing() []Violation {
	m := &Checker{}
	for _, id := range slices.Sorted(maps.Keys(c.lives)) {
		l := c.lives[id]
		if l.created && l.init.pid != 0 && !l.init.exited {
			m.fail(-1, ExitMissing, Event{Container: id}, "no exit of %s (pid %d)", processName(id, ""), l.init.pid)
		}
		for _, exec := range runningExecs(l) {
			m.fail(-1, ExitMissing, Event{Container: id, Exec: exec}, "no exit of %s (pid %d)", processName(id, exec), l.execs[exec].pid)
		}
	}
	for _, k := range c.answerKeys() {
		c.missingAnswered(m, k, c.answers[k])
	}
	return m.violations
}

func (c *Checker) answerKeys() []key {
	return slices.SortedFunc(maps.Keys(c.answers), func(a, b key) int {
		if a.container != b.container {
			return compare(a.container, b.container)
		}
		return compare(a.exec, b.exec)
	})
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// find gives the process of a key, nil parts where nothing was told of it.
func (c *Checker) find(k key) (*life, *process) {
	l := c.lives[k.container]
	switch {
	case l == nil:
		return nil, &process{}
	case k.exec == "":
		return l, &l.init
	case l.execs[k.exec] == nil:
		return l, &process{}
	}
	return l, l.execs[k.exec]
}

func ok(a *Answer) bool     { return a != nil && !a.Failed }
func failed(a *Answer) bool { return a != nil && a.Failed }

// missingAnswered adds what the good answers about one process promised.
func (c *Checker) missingAnswered(m *Checker, k key, a *answers) {
	e := Event{Container: k.container, Exec: k.exec}
	name := processName(k.container, k.exec)
	l, p := c.find(k)
	if ok(a.create) && (l == nil || !l.created) {
		m.fail(-1, CreateMissing, e, "create of %s was answered, no create event came", k.container)
	}
	if ok(a.exec) && !p.added {
		m.fail(-1, ExecAddedMissing, e, "exec of %s was answered, no exec-added event came", name)
	}
	if ok(a.start) && !p.started {
		m.fail(-1, StartMissing, e, "start of %s was answered, no start event came", name)
	}
	if ok(a.wait) && !p.exited && (k.exec == "" || ok(a.start)) {
		m.fail(-1, AnswerWithoutExit, e, "wait for %s was answered, no exit event came", name)
	}
	if ok(a.del) && k.exec == "" && (l == nil || !l.deleted) {
		m.fail(-1, DeleteMissing, e, "delete of %s was answered, no delete event came", k.container)
	}
}

// contradictions adds the answers that the events belie.
func (c *Checker) contradictions() {
	for _, k := range c.answerKeys() {
		a := c.answers[k]
		e := Event{Container: k.container, Exec: k.exec}
		name := processName(k.container, k.exec)
		l, p := c.find(k)
		if failed(a.create) && l != nil && l.created {
			c.fail(-1, CreateUnasked, e, "a create event of %s, whose create was answered with an error", k.container)
		}
		if failed(a.exec) && p.added {
			c.fail(-1, ExecAddedUnasked, e, "an exec-added event of %s, whose exec was answered with an error", name)
		}
		if failed(a.start) && p.started {
			c.fail(-1, StartUnasked, e, "a start event of %s, whose start was answered with an error", name)
		}
		for _, s := range []*Answer{a.create, a.start, a.del} {
			if ok(s) && s.Pid != 0 && p.pid != 0 && s.Pid != p.pid {
				c.fail(-1, AnswerDiffers, e, "an answer about %s says pid %d, its event %d", name, s.Pid, p.pid)
			}
		}
		c.sameExit(e, name, "wait", a.wait, p)
		c.sameExit(e, name, "delete", a.del, p)
	}
}

// sameExit holds the status and the time of an answer against the exit event.
func (c *Checker) sameExit(e Event, name, call string, a *Answer, p *process) {
	if !ok(a) || !p.exited {
		return
	}
	if a.Status != p.exit.Status {
		c.fail(-1, AnswerDiffers, e, "%s of %s answered status %d, its exit event said %d", call, name, a.Status, p.exit.Status)
	}
	if !a.At.Equal(p.exit.At) {
		c.fail(-1, AnswerDiffers, e, "%s of %s answered exit time %v, its exit event said %v", call, name, a.At.UTC(), p.exit.At.UTC())
	}
}
