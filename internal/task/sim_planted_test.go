package task

import (
	"testing"

	"github.com/larkshim/lark/internal/planted"
)

// TestPlantedFaultsOfTheShell shows that the simulation finds faults of the shell.
func TestPlantedFaultsOfTheShell(t *testing.T) {
	withoutOwner(t, func() { planted.Check(t, shellFaults, "-sim.seeds=1000", "-sim.failures=1") })
}

// Every fault is to be found by the simulation alone.
var shellFaults = []planted.Fault{
	{Name: "lock-dropped-between-step-and-append", File: "container.go", Test: "TestSimulation",
		Old: "	for _, e := range effects {\n		if e.Kind == lifecycle.AskAgain {",
		New: "	if isPlanted(\"lock-dropped-between-step-and-append\") {\n		effects = append([]lifecycle.Effect(nil), effects...)\n		c.mu.Unlock()\n		time.Sleep(1)\n		c.mu.Lock()\n	}\n	for _, e := range effects {\n		if e.Kind == lifecycle.AskAgain {"},
	{Name: "watched-before-announced", File: "obligation.go", Test: "TestSimulation",
		Old: "	o.c.mu.Lock()\n	defer o.c.mu.Unlock()\n	ev := o.success\n",
		New: "	if p := o.c.execs[o.success.Proc]; isPlanted(\"watched-before-announced\") && p != nil && o.success.Kind == lifecycle.Started {\n		p.child = o.child\n		routine.Go(o.c.log, \"watch\", func() { o.c.watch(p, o.c.owe(p.id, watching)) })\n		time.Sleep(1)\n	}\n	o.c.mu.Lock()\n	defer o.c.mu.Unlock()\n	ev := o.success\n"},
	{Name: "obligation-resolved-twice", File: "obligation.go", Test: "TestSimulation",
		Old: "	o.settled = true\n	_, _ = o.c.stepLocked(ev)",
		New: "	o.settled = !isPlanted(\"obligation-resolved-twice\")\n	_, _ = o.c.stepLocked(ev)"},
	{Name: "exec-left-in-the-map", File: "delete.go", Test: "TestSimulation",
		Old: "		delete(c.execs, p.id)", New: ""},
	{Name: "exit-kept-after-the-announcement", File: "container.go", Test: "TestSimulation",
		Old: "		c.keepExit(exit)\n		failpoint.Point(\"exit: recorded\")",
		New: "		routine.Go(c.log, \"late\", func() { <-p.exited; c.keepExit(exit) })"},
	{Name: "kill-all-done-though-it-failed", File: "container.go", Test: "TestSimulation",
		Old: "	err := c.service.reserve.during(func() error { return c.killGroup(ctx) })\n	failpoint.Step(\"kill-all: carried out\")",
		New: "	err := c.service.reserve.during(func() error { return c.killGroup(ctx) })\n	if isPlanted(\"kill-all-done-though-it-failed\") {\n		err = nil\n	}\n	failpoint.Step(\"kill-all: carried out\")"},
	{Name: "waiter-not-released", File: "container.go", Test: "TestSimulation",
		Old: "	close(p.exited)\n}\n\n// killInit",
		New: "	if !isPlanted(\"waiter-not-released\") {\n		close(p.exited)\n	}\n}\n\n// killInit"},
	{Name: "wake-up-lost", File: "../outbox/outbox.go", Test: "TestSimulation",
		Old: "	case o.wake <- struct{}{}:\n	default:",
		New: "	case map[bool]chan struct{}{true: o.wake}[!isPlanted(\"wake-up-lost\") || o.queue.len() != 1] <- struct{}{}:\n	default:"},
	{Name: "delete-answers-before-the-exit", File: "delete.go", Test: "TestSimulation",
		Old: "		case !again:\n			c.finishDelete(",
		New: "		case again && isPlanted(\"delete-answers-before-the-exit\"):\n			return &task.DeleteResponse{ExitStatus: 137}, nil\n		case !again:\n			c.finishDelete("},
	{Name: "pause-not-undone", File: "control.go", Test: "TestSimulationScripts",
		Old: "			o.onFailure(c.undoPause)", New: ""},
	{Name: "delete-overtakes-calls", File: "inflight.go", Test: "TestSimulationScripts",
		Old: "	f.mu.Lock()\n	f.closed, f.idle = true",
		New: "	if isPlanted(\"delete-overtakes-calls\") {\n		return true\n	}\n	f.mu.Lock()\n	f.closed, f.idle = true"},
	{Name: "create-not-undone", File: "shim.go", Test: "TestSimulation",
		Old: "			s.beginRemove(e.ID)", New: ""},
	{Name: "start-not-undone", File: "start.go", Test: "TestSimulation",
		Old: "	return err != nil && !errors.Is(err, context.DeadlineExceeded) || err == nil && state.Status == statusCreated",
		New: "	return isPlanted(\"start-not-undone\") || err != nil && !errors.Is(err, context.DeadlineExceeded) || err == nil && state.Status == statusCreated"},
}
