package order

// The checker's state and the judgement of one event. What can only be judged
// when everything has arrived is in finish.go.

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// process is what the stream has told of one process.
type process struct {
	added, started, exited bool
	pid                    uint32 // from create or start; 0 when no process was told of
	exit                   Event  // valid when exited
	exits                  int
}

// life is one container from its create to its delete. An id that is created
// again after its delete begins a new life.
type life struct {
	created, deleted bool
	createdPid       uint32
	init             process
	execs            map[string]*process
	lastSent         time.Time
	lastKind         Kind
	del              Event // valid when deleted
}

// Checker judges one stream of events. All methods may be called from any
// goroutine; the order of the Observe calls is the order that is judged, so
// one goroutine should make them.
type Checker struct {
	mu         sync.Mutex
	lives      map[string]*life
	answers    map[key]*answers
	counts     Counts
	violations []Violation
	finished   bool
}

type key struct{ container, exec string }

// New returns a Checker that has seen nothing.
func New() *Checker {
	return &Checker{lives: map[string]*life{}, answers: map[key]*answers{}}
}

// Observe judges the next event in arrival order and returns the violations
// that it shows, nil when it is in order. They are kept for Violations too.
func (c *Checker) Observe(e Event) []Violation {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.violations)
	index := c.counts.Events
	c.counts.Events++
	if e.Exec == e.Container {
		e.Exec = "" // containerd's TaskExit names the init by its container's id
	}
	if e.Kind != Other {
		c.judge(index, e)
	}
	return slices.Clone(c.violations[before:])
}

// Violations returns all violations so far, in the order they were found.
func (c *Checker) Violations() []Violation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.violations)
}

// Counts returns the figures so far.
func (c *Checker) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counts
	n.Violations = len(c.violations)
	return n
}

func (c *Checker) fail(index int, r Rule, e Event, format string, args ...any) {
	c.violations = append(c.violations, Violation{
		Rule: r, Container: e.Container, Exec: e.Exec, Index: index, Text: fmt.Sprintf(format, args...),
	})
}

// judge finds the life that the event belongs to and hands it to the judge of
// its kind.
func (c *Checker) judge(index int, e Event) {
	l := c.lives[e.Container]
	if e.Kind == Created {
		c.create(index, e, l)
		return
	}
	if l == nil {
		c.fail(index, CreateFirst, e, "%s of %s came before any create", e.Kind, e.process())
		l = &life{execs: map[string]*process{}}
		c.lives[e.Container] = l
	}
	c.sentInOrder(index, e, l)
	if l.deleted && e.Kind != Deleted {
		c.fail(index, AfterDelete, e, "%s of %s came after the container's delete", e.Kind, e.process())
	}
	switch e.Kind {
	case Started:
		c.start(index, e, l)
	case ExecAdded:
		c.execAdded(index, e, l)
	case ExecStarted:
		c.execStarted(index, e, l)
	case Exited:
		c.exit(index, e, l)
	case Deleted:
		c.delete(index, e, l)
	case OOM:
		if l.init.exited {
			c.fail(index, OOMAfterExit, e, "out of memory of %s came after its exit", e.Container)
		}
	}
}

// sentInOrder holds the envelope's time, taken as the event was queued, against
// that of the event before: a retried event that was overtaken is older.
func (c *Checker) sentInOrder(index int, e Event, l *life) {
	if e.Sent.IsZero() {
		return
	}
	if e.Sent.Before(l.lastSent) {
		c.fail(index, Overtaken, e, "%s of %s was sent %v before the %s that arrived ahead of it",
			e.Kind, e.process(), l.lastSent.Sub(e.Sent), l.lastKind)
	} else {
		l.lastSent, l.lastKind = e.Sent, e.Kind
	}
}

func (c *Checker) create(index int, e Event, l *life) {
	c.counts.Containers++
	if l != nil && !l.deleted {
		rule, text := CreateDoubled, "a second create of %s without a delete between"
		if !l.created {
			rule, text = CreateFirst, "the create of %s came after other events of it"
		}
		c.fail(index, rule, e, text, e.Container)
		l.created, l.createdPid = true, e.Pid
		if l.init.pid == 0 {
			l.init.pid = e.Pid
		}
		return
	}
	c.lives[e.Container] = &life{
		created: true, createdPid: e.Pid, init: process{added: true, pid: e.Pid},
		execs: map[string]*process{}, lastSent: e.Sent, lastKind: Created,
	}
}

func (c *Checker) start(index int, e Event, l *life) {
	p := &l.init
	switch {
	case p.started:
		c.fail(index, StartDoubled, e, "a second start of %s", e.process())
	case p.exited:
		c.fail(index, StartAfterExit, e, "start of %s came after its exit", e.process())
	}
	if e.Pid == 0 {
		c.fail(index, StartPid, e, "start of %s has no pid", e.process())
	} else if l.createdPid != 0 && e.Pid != l.createdPid {
		c.fail(index, StartPid, e, "start of %s says pid %d, its create said %d", e.process(), e.Pid, l.createdPid)
	}
	p.started, p.pid = true, e.Pid
}

func (c *Checker) execAdded(index int, e Event, l *life) {
	p := l.execs[e.Exec]
	a := c.answers[key{e.Container, e.Exec}]
	if p != nil && p.added && !p.exited && (a == nil || !a.deleted) {
		c.fail(index, ExecAddedDoubled, e, "a second exec-added of %s, which has not ended", e.process())
		return
	}
	l.execs[e.Exec] = &process{added: true}
}

func (c *Checker) execStarted(index int, e Event, l *life) {
	c.counts.Execs++
	p := c.execOf(index, e, l)
	switch {
	case p.started:
		c.fail(index, StartDoubled, e, "a second start of %s", e.process())
	case p.exited:
		c.fail(index, StartAfterExit, e, "start of %s came after its exit", e.process())
	}
	if l.init.exited {
		c.fail(index, ExecAfterInit, e, "%s was started after its init's exit", e.process())
	}
	if e.Pid == 0 {
		c.fail(index, StartPid, e, "start of %s has no pid", e.process())
	}
	p.started, p.pid = true, e.Pid
}

// execOf finds the exec of an event that presupposes an exec-added.
func (c *Checker) execOf(index int, e Event, l *life) *process {
	p := l.execs[e.Exec]
	if p == nil {
		c.fail(index, ExecNotAdded, e, "%s of %s came before its exec-added", e.Kind, e.process())
		p = &process{}
		l.execs[e.Exec] = p
	}
	return p
}

func (c *Checker) exit(index int, e Event, l *life) {
	c.counts.Exits++
	p := &l.init
	if e.Exec != "" {
		p = c.execOf(index, e, l)
		if !p.started {
			c.fail(index, ExitWithoutStart, e, "exit of %s came without its start", e.process())
		}
		if l.init.exited && !p.exited {
			c.fail(index, ExitAfterInit, e, "exit of %s came after its init's exit", e.process())
		}
	}
	p.exits++
	if p.exited {
		c.fail(index, ExitDoubled, e, "exit number %d of %s (status %d, before %d)", p.exits, e.process(), e.Status, p.exit.Status)
		return
	}
	if e.Pid == 0 || (p.pid != 0 && e.Pid != p.pid) {
		c.fail(index, ExitPid, e, "exit of %s says pid %d, the process was %d", e.process(), e.Pid, p.pid)
	}
	if e.At.Unix() <= 0 {
		c.fail(index, ExitTime, e, "exit of %s says it was at %v", e.process(), e.At.UTC())
	}
	p.exited, p.exit = true, e
	if e.Exec == "" {
		for _, id := range runningExecs(l) {
			c.fail(index, InitNotLast, e, "exit of %s came while exec %s was running", e.process(), id)
		}
	}
}

func runningExecs(l *life) []string {
	var ids []string
	for id, p := range l.execs {
		if p.started && !p.exited {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (c *Checker) delete(index int, e Event, l *life) {
	if e.Exec != "" {
		return // upstream sends none; where one is sent, Delete of an exec is no part of the order
	}
	if l.deleted {
		c.fail(index, DeleteDoubled, e, "a second delete of %s", e.Container)
		return
	}
	l.deleted, l.del = true, e
	switch {
	case l.init.exited:
		x := l.init.exit
		if e.Pid != x.Pid || e.Status != x.Status || !e.At.Equal(x.At) {
			c.fail(index, DeleteDiffers, e, "delete of %s says pid %d, status %d, at %v; its exit said pid %d, status %d, at %v",
				e.Container, e.Pid, e.Status, e.At.UTC(), x.Pid, x.Status, x.At.UTC())
		}
	case l.init.pid != 0:
		c.fail(index, DeleteBeforeExit, e, "delete of %s came before the exit of its init, pid %d", e.Container, l.init.pid)
	}
}
