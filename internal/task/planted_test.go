package task

import (
	"testing"

	"github.com/larkshim/lark/internal/planted"
)

// TestPlantedFaults shows that the tests of this package notice its faults; those
// that the simulation finds are in a table of their own.
func TestPlantedFaults(t *testing.T) {
	withoutOwner(t, func() { planted.Check(t, plantedFaults) })
}

var plantedFaults = []planted.Fault{
	// What is kept, and for how long.
	{Name: "exec-left-in-the-map", File: "delete.go", Test: "TestDeletedLeavesTheTables",
		Old: "		delete(c.execs, p.id)", New: ""},
	{Name: "exit-kept-late", File: "container.go", Test: "TestExitIsKeptBeforeItIsAnnounced",
		Old: "		c.keepExit(exit)\n		failpoint.Point(\"exit: recorded\")",
		New: "		routine.Go(c.log, \"late\", func() { <-p.exited; c.keepExit(exit) })"},
	{Name: "stdio-not-closed", File: "container.go", Test: "TestSimulation",
		Old: "		routine.Go(nil, \"end of stdio\", func() { io.Close() })", New: ""},
	{Name: "waiter-not-released", File: "container.go", Test: "TestWaitersAreReleasedWithTheAnnouncement",
		Old: "	close(p.exited)\n}\n\n// killInit",
		New: "	if !isPlanted(\"waiter-not-released\") {\n		close(p.exited)\n	}\n}\n\n// killInit"},
	{Name: "container-not-dismissed", File: "container.go", Test: "TestDeletedLeavesTheTables",
		Old: "	c.service.dismiss(c)", New: ""},
	{Name: "failed-create-stays-mounted", File: "create.go", Test: "TestFailedCreateLeavesNoMount",
		Old: "	if !c.mounted {",
		New: "	if !c.mounted || isPlanted(\"failed-create-stays-mounted\") {"},
	{Name: "failed-create-stays", File: "clear.go", Test: "TestRow30RuntimeThatFailsLate",
		Old: "	if f.state {",
		New: "	if f.state && !isPlanted(\"failed-create-stays\") {"},

	// The end of processes.
	{Name: "kill-all-not-done", File: "killgroup.go", Test: "TestW1LeftBehindInTheHostsPidNamespace",
		Old: "	return c.service.rooms.killAll(ctx, dir)\n}",
		New: "	if isPlanted(\"kill-all-not-done\") {\n	return nil\n	}\n	return c.service.rooms.killAll(ctx, dir)\n}"},
	{Name: "kill-all-done-though-it-failed", File: "container.go", Test: "TestF13KillAllFails",
		Old: "	case err != nil && !errdefs.IsNotFound(err):\n		c.log.Error(\"processes",
		New: "	case err != nil && !errdefs.IsNotFound(err) && !isPlanted(\"kill-all-done-though-it-failed\"):\n		c.log.Error(\"processes"},
	{Name: "failed-exec-lives", File: "obligation.go", Test: "TestSimulation",
		Old: "	if o.child == nil {",
		New: "	if o.child == nil || isPlanted(\"failed-exec-lives\") {"},
	{Name: "failure-not-reported", File: "obligation.go", Test: "TestF13PanicInCreate",
		Old: "		o.settle(o.failure)", New: ""},
	{Name: "resolved-twice", File: "obligation.go", Test: "TestF13ResolvedOnce",
		Old: "	if prepare != nil && !o.settled {",
		New: "	if prepare != nil && (!o.settled || isPlanted(\"resolved-twice\")) {"},

	// Order, status and time.
	{Name: "status-lost", File: "container.go", Test: "TestLifeOfAContainer",
		Old: "	o.resolve(func(ev *lifecycle.Event) { ev.Exit = exit })",
		New: "	o.resolve(func(ev *lifecycle.Event) { ev.Exit.At = exit.At })"},
	{Name: "exit-before-start-by-the-clock", File: "clock.go", Test: "TestRow58Later",
		Old: "	return told.Add(max(0, exit.Sub(told)))",
		New: "	return exit"},
	{Name: "exit-named-by-the-exec", File: "announce.go", Test: "TestLifeOfAContainer",
		Old: "			id = c.id // containerd names init's exit by the container",
		New: "			id = \"init\""},
	{Name: "exec-exit-is-inits", File: "announce.go", Test: "TestKindsOfTheOutbox",
		Old: "		return outbox.ExecExit\n",
		New: "		if !isPlanted(\"exec-exit-is-inits\") {\n		return outbox.ExecExit\n		}\n"},
	{Name: "stopped-without-init", File: "state.go", Test: "TestPidsOfAStoppedContainer",
		Old: "	if v.Status == lifecycle.StatusStopped && v.Pid != 0 {",
		New: "	if v.Status == lifecycle.StatusStopped && v.Pid != 0 && !isPlanted(\"stopped-without-init\") {"},
	{Name: "pids-without-execs", File: "state.go", Test: "TestPidsNamesExecs",
		Old: "			m[v.Pid] = p", New: ""},

	// Requests.
	{Name: "id-taken-twice", File: "service.go", Test: "TestRow12CreateTwice",
		Old: "	if s.containers[c.id] != nil {",
		New: "	if s.containers[c.id] != nil && !isPlanted(\"id-taken-twice\") {"},
	{Name: "size-not-kept", File: "io.go", Test: "TestF09ResizeBeforeStart",
		Old: "	p.size.Store(size)",
		New: "	if !isPlanted(\"size-not-kept\") {\n	p.size.Store(size)\n	}"},
	{Name: "exec-named-as-init", File: "exec.go", Test: "TestRow02ExecsWithOthersNames",
		Old: "	if execID.String() == c.id {",
		New: "	if execID.String() == c.id && !isPlanted(\"exec-named-as-init\") {"},
	{Name: "terminal-mismatch-taken", File: "create.go", Test: "TestRow26TerminalMismatch",
		Old: "	if r.Checkpoint == \"\" && spec.Terminal != r.Terminal {",
		New: "	if r.Checkpoint == \"\" && spec.Terminal != r.Terminal && !isPlanted(\"terminal-mismatch-taken\") {"},
	{Name: "shutdown-with-containers", File: "service.go", Test: "TestShutdownWaitsForTheLastContainer",
		Old: "	_ = s.stepShimLocked(shimrules.Event{Kind: shimrules.ShutdownAsked})",
		New: "	if isPlanted(\"shutdown-with-containers\") {\n	s.cfg.Shutdown()\n	}\n	_ = s.stepShimLocked(shimrules.Event{Kind: shimrules.ShutdownAsked})"},
	{Name: "reserve-kept", File: "reserve.go", Test: "TestRow47Reserve",
		Old: "	for _, fd := range r.fds {\n		unix.Close(fd)\n	}\n	r.fds = r.fds[:0]\n}\n\n// during",
		New: "	for _, fd := range r.fds {\n		if !isPlanted(\"reserve-kept\") {\n	unix.Close(fd)\n	}\n	}\n	r.fds = r.fds[:0]\n}\n\n// during"},
	{Name: "runtime-knows-best", File: "kill.go", Test: "TestF01RuntimeForgets",
		Old: "failed && (direct == nil || errdefs.IsNotFound(direct)) {",
		New: "failed && !isPlanted(\"runtime-knows-best\") && (direct == nil || errdefs.IsNotFound(direct)) {"},
}
