package task

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/lifecycle"
)

// told is what the shell has announced of one process, in the life of its
// container that is the current one.
type told struct {
	created, started, added, exited, deleted bool
	status                                   uint32
	proc                                     *simProc
}

// simLife is one life of a container: what was announced, and every step of its
// machine.
type simLife struct {
	of    *container
	procs map[lifecycle.Proc]*told
	steps []simStep
	gone  bool
	// lost: the client that had it created had left before it was answered.
	lost bool
}

type simStep struct {
	event   lifecycle.Event
	effects []lifecycle.Effect
	err     error
}

// observe is called by the shell after every step of a machine, under the
// container's lock.
func (s *simulation) observe(c *container, ev lifecycle.Event, effects []lifecycle.Effect, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures.steps++
	l := s.lives[c]
	if l == nil {
		l = &simLife{of: c, procs: map[lifecycle.Proc]*told{}}
		s.lives[c] = l
		s.current[c.id] = l
	}
	l.steps = append(l.steps, simStep{ev, slices.Clone(effects), err})
	if lifecycle.IsContract(err) {
		s.fault("the machine of %s refused %v of %q as out of contract: %v", c.id, ev.Kind, ev.Proc, err)
	}
	if ev.Kind == lifecycle.Deleted && ev.Proc != initProc && err == nil {
		s.checker.Answered(order.Answer{Call: order.CallDelete, Container: c.id, Exec: string(ev.Proc)})
	}
	if ev.Kind == lifecycle.Deleted && c.execs[ev.Proc] != nil {
		s.fault("exec %q of %s was deleted and is still in the table", ev.Proc, c.id)
	}
	if ev.Kind == lifecycle.StartFailed && ev.Proc == initProc && s.goesOn(c) {
		s.fault("the start of %s was told as failed, and its init runs", c.id)
	}
	for _, e := range effects {
		if e.Kind == lifecycle.Announce {
			s.announced(c, l, e)
		}
	}
}

// of returns what was told of a process; s.mu is held.
func (l *simLife) tell(p lifecycle.Proc) *told {
	t := l.procs[p]
	if t == nil {
		t = &told{}
		l.procs[p] = t
	}
	return t
}

func (s *simulation) announced(c *container, l *simLife, e lifecycle.Effect) {
	t := l.tell(e.Proc)
	s.announcements++
	switch e.Topic {
	case lifecycle.TopicCreate:
		t.created = true
		os.Remove(filepath.Join(c.bundle.Path(), exitFile)) // an earlier life's
		t.proc = s.byPid(e.Pid)
	case lifecycle.TopicStart:
		t.started = true
		if e.Pid != 0 {
			t.proc = s.byPid(e.Pid)
		}
	case lifecycle.TopicExecAdded:
		l.procs[e.Proc] = &told{added: true}
	case lifecycle.TopicExecStarted:
		t.started = true
		t.proc = s.byPid(e.Pid)
	case lifecycle.TopicExit:
		t.exited, t.status = true, e.Exit.Status
		if t.proc != nil && !t.proc.dead {
			s.fault("the exit of %q of %s was announced, and it lives", e.Proc, c.id)
		}
		if e.Proc == initProc {
			s.exitKept(c)
			if left := s.othersAlive(t.proc); len(left) > 0 {
				s.fault("init's exit of %s was announced while %v lives", c.id, left)
			}
		}
	case lifecycle.TopicDelete:
		t.deleted, l.gone = true, true
	}
}

// goesOn says that init of the container was started and lives on.
func (s *simulation) goesOn(c *container) bool {
	if c.init.child == nil {
		return false
	}
	p := c.init.child.(*simProc)
	s.kernel.mu.Lock()
	defer s.kernel.mu.Unlock()
	return p.box.started && !p.dead && !p.killed
}

// exitKept looks for init's exit in the bundle, where it has to be before it is
// announced.
func (s *simulation) exitKept(c *container) {
	if _, err := os.Stat(filepath.Join(c.bundle.Path(), exitFile)); err != nil {
		s.fault("init's exit of %s was announced before it was kept in the bundle", c.id)
	}
}

func (s *simulation) byPid(pid int) *simProc {
	s.kernel.mu.Lock()
	defer s.kernel.mu.Unlock()
	for _, p := range s.kernel.procs {
		if p.pid == pid {
			return p
		}
	}
	return nil
}

// checkWaiters looks, while everything is at rest, for a Wait that was not answered
// though the exit was announced.
func (s *simulation) checkWaiters() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients.mu.Lock()
	defer s.clients.mu.Unlock()
	for _, call := range s.clients.calls {
		if call.over || call.life == nil || call.op != "wait" && call.op != "wait exec" {
			continue
		}
		if t := call.life.procs[call.proc()]; t != nil && t == call.told && t.exited {
			s.fault("%s is not answered, and the exit was announced", call.label)
		}
	}
}

// othersAlive lists what lives of a container besides init.
func (s *simulation) othersAlive(init *simProc) (names []string) {
	for _, p := range s.kernel.alive() {
		if init != nil && p.box == init.box && p != init && !p.killed {
			names = append(names, p.name)
		}
	}
	return names
}

// running is the process if it was announced as running, lives, and nothing was
// asked that ends it; otherwise nil.
func (s *simulation) running(id, exec string) *simProc {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.current[id]
	if l == nil || l.gone {
		return nil
	}
	t := l.procs[lifecycle.Proc(exec)]
	if t == nil || !t.started || t.exited || t.proc == nil {
		return nil
	}
	s.kernel.mu.Lock()
	defer s.kernel.mu.Unlock()
	if t.proc.dead {
		return nil
	}
	return t.proc
}

// known is the current life of a container, and what was told of its process.
func (s *simulation) known(id, exec string) (*simLife, *told) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.current[id]
	if l == nil || l.gone {
		return nil, nil
	}
	return l, l.procs[lifecycle.Proc(exec)]
}

// judge holds an answer against what was announced when it was given.
func (s *simulation) judge(call *simCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errdefs.IsNotFound(call.err) && call.subject != nil && call.op != "closeio exec" && call.op != "stats" {
		s.kernel.mu.Lock()
		lives := !call.subject.dead && !call.subject.killed
		s.kernel.mu.Unlock()
		if lives {
			s.fault("%s was answered NotFound, and %s lives: %v", call.label, call.subject.name, call.err)
		}
	}
	if call.err != nil {
		if errors.Is(call.err, errdefs.ErrNotFound) && errors.Is(call.err, errSim) {
			s.fault("%s: a failure of the runtime became NotFound: %v", call.label, call.err)
		}
		return
	}
	l := s.current[call.id]
	if l == nil {
		if call.op != "shutdown" {
			s.fault("%s was answered, and nothing is known of the container", call.label)
		}
		return
	}
	if call.left && (call.op == "create" || call.op == "create restored") {
		l.lost = true
	}
	t := l.tell(call.proc())
	missing := ""
	switch call.op {
	case "create", "create restored":
		missing = unless(t.created, "create")
	case "exec":
		missing = unless(t.added || t.started, "exec-added")
	case "start", "start exec":
		missing = unless(t.started, "start")
	case "wait", "wait exec":
		missing = unless(t.exited && t.status == call.status, "exit")
	case "delete":
		missing = unless((t.exited && t.status == call.status || t.proc == nil) && t.deleted, "exit and delete")
	case "delete exec":
		missing = unless(!t.started || t.exited, "exit")
	case "state", "state exec":
		if call.state.Status == apiStatus[lifecycle.StatusStopped] {
			missing = unless(t.exited, "exit")
		}
	}
	// An id that was used again meanwhile has another life by now.
	if missing != "" && len(s.livesOf(call.id)) == 1 {
		s.fault("%s was answered before the %s was announced", call.label, missing)
	}
}

func unless(ok bool, what string) string {
	if ok {
		return ""
	}
	return what
}

func (s *simulation) livesOf(id string) (list []*simLife) {
	for c, l := range s.lives {
		if c.id == id {
			list = append(list, l)
		}
	}
	return list
}

// checkLost looks, while everything is at rest, for containers that no client knows
// of, unless another client has started one.
func (s *simulation) checkLost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, l := range s.lives {
		if l.lost && !l.gone && !l.tell(initProc).started {
			s.fault("the client of the create of %s had left, and it was not undone", c.id)
		}
	}
}

// fault notes a violation; s.mu is held.
func (s *simulation) fault(format string, args ...any) {
	if len(s.faults) < 20 {
		s.faults = append(s.faults, fmt.Sprintf(format, args...))
	}
}

// replay steps every recorded life through a machine of its own: the same events
// have the same effects, and none is out of contract.
func (s *simulation) replay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, l := range s.lives {
		m := lifecycle.New()
		for i, step := range l.steps {
			s.cover(m, step.event)
			effects, err := m.Step(step.event)
			if (err == nil) != (step.err == nil) || !slices.Equal(sorted(effects), sorted(step.effects)) {
				s.fault("step %d of %s (%v of %q) had the effects %v, %v; its replay %v, %v",
					i, c.id, step.event.Kind, step.event.Proc, step.effects, step.err, effects, err)
				break
			}
		}
	}
}

// sorted is the effects with the releases, which follow one another in any order,
// in that of their ids.
func sorted(effects []lifecycle.Effect) []lifecycle.Effect {
	effects = slices.Clone(effects)
	slices.SortStableFunc(effects, func(a, b lifecycle.Effect) int {
		if a.Kind != lifecycle.Release || b.Kind != lifecycle.Release {
			return 0
		}
		return strings.Compare(string(a.Proc), string(b.Proc))
	})
	return effects
}

// cover counts the cells of the tables that were reached.
func (s *simulation) cover(m *lifecycle.Machine, ev lifecycle.Event) {
	if ev.Kind == lifecycle.ExecAsked || ev.Proc != initProc {
		s.figures.execCells[[2]int{int(m.ExecState(ev.Proc)), int(ev.Kind)}] = true
		return
	}
	s.figures.initCells[[2]int{int(m.State()), int(ev.Kind)}] = true
}
