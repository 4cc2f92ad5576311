package children

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/planted"
)

// TestPlantedFaults shows that the tests of this package notice its faults.
func TestPlantedFaults(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
			t.Error(err)
		}
	}()
	// What a test has left of which a fault kept it from killing it comes to us.
	defer eventually(t, "what the faults have left is gone", func() string {
		pids, err := childrenOf(kernel{}, "self")
		if err != nil || len(pids) == 0 {
			return ""
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		return describe(pids)
	})
	planted.Check(t, plantedFaults)
}

var plantedFaults = []planted.Fault{
	// Claims.
	{Name: "claim-of-anything", File: "window.go", Test: "TestRefusedClaims",
		Old: "if pid <= 1 || pid == o.self {",
		New: "if (pid <= 1 || pid == o.self) && !isPlanted(\"claim-of-anything\") {"},
	{Name: "claim-of-the-older", File: "window.go", Test: "TestRefusedClaims",
		Old: "	if h.start < w.ticks {",
		New: "	if h.start < w.ticks && !isPlanted(\"claim-of-the-older\") {"},
	{Name: "claim-from-another-namespace", File: "window.go", Test: "TestRefusedClaims",
		Old: "	case known != 0:\n",
		New: "	case known != 0 && !isPlanted(\"claim-from-another-namespace\"):\n"},
	{Name: "claim-from-another-container", File: "window.go", Test: "TestRefusedClaims",
		Old: "	case ino != own && o.inUse[ino] > 0:",
		New: "	case ino != own && o.inUse[ino] > 0 && !isPlanted(\"claim-from-another-container\"):"},
	{Name: "claimed-twice", File: "window.go", Test: "TestClaimedOnce",
		Old: "	if o.holder(h.pid, h.start) != nil {\n		return ErrClaimed",
		New: "	if o.holder(h.pid, h.start) != nil && !isPlanted(\"claimed-twice\") {\n		return ErrClaimed"},
	{Name: "claimed-after-the-window", File: "window.go", Test: "TestClaimedOnce",
		Old: "	w.closed = true\n	delete(o.windows, w)",
		New: "	w.closed = !isPlanted(\"claimed-after-the-window\")\n	delete(o.windows, w)"},
	{Name: "pidfd-of-a-refused-claim-kept", File: "window.go", Test: "TestRefusedClaims",
		Old: "		unix.Close(fd)\n		return nil, &ClaimError{pid, err}",
		New: "		if !isPlanted(\"pidfd-of-a-refused-claim-kept\") {\n		unix.Close(fd)\n		}\n		return nil, &ClaimError{pid, err}"},
	{Name: "namespace-not-learnt", File: "window.go", Test: "TestNamespaceIsLearnt",
		Old: "		w.ns.learn(ino, ino == own)",
		New: ""},

	// Windows and the sweep.
	{Name: "window-closed-early", File: "window.go", Test: "TestZombieIsKeptForItsWindow",
		Old: "	o.windows[w] = struct{}{}",
		New: ""},
	{Name: "reaped-by-a-peek", File: "system_linux.go", Test: "TestSweepLeavesTheClaimed",
		Old: "		options |= unix.WNOWAIT",
		New: ""},
	{Name: "claimed-child-not-known", File: "owner.go", Test: "TestSweepLeavesTheClaimed",
		Old: "	o.known[h.pid] = h\n",
		New: "	if !isPlanted(\"claimed-child-not-known\") {\n	o.known[h.pid] = h\n	}\n"},
	{Name: "start-without-a-window", File: "process.go", Test: "TestStartIsAWindow",
		Old: "	defer w.Close()\n	fd := -1",
		New: "	if isPlanted(\"start-without-a-window\") {\n	w.Close()\n	}\n	defer w.Close()\n	fd := -1"},
	{Name: "guard-without-a-window", File: "owner.go", Test: "TestGuardIsAWindow",
		Old: "	defer w.Close()\n	return fn()",
		New: "	if isPlanted(\"guard-without-a-window\") {\n	w.Close()\n	}\n	defer w.Close()\n	return fn()"},
	{Name: "orphan-waits-for-every-window", File: "sweep.go", Test: "TestOrphanWaitsForNoLaterWindow",
		Old: "			z.seen = old.seen",
		New: ""},
	{Name: "close-wakes-no-sweep", File: "window.go", Test: "TestCloseOfAWindowArmsTheSweep",
		Old: "	if len(o.zombies)+len(o.doomed) > 0 {\n		o.arm()",
		New: "	if len(o.zombies)+len(o.doomed) > 0 && !isPlanted(\"close-wakes-no-sweep\") {\n		o.arm()"},
	{Name: "failed-sweep-not-repeated", File: "sweep.go", Test: "TestSweepTriesAgain",
		Old: "if after := o.sweep(); after > 0 {",
		New: "if after := o.sweep(); after > 0 && !isPlanted(\"failed-sweep-not-repeated\") {"},
	{Name: "another-containers-call-waited-for", File: "sweep.go", Test: "TestHungCallOfAnotherContainer",
		Old: "found[pid] = zombie{start: st.start, ns: ns}",
		New: "if isPlanted(\"another-containers-call-waited-for\") {\n	ns = 0\n	}\n	found[pid] = zombie{start: st.start, ns: ns}"},
	{Name: "reused-number-buried", File: "sweep.go", Test: "TestF17StaleZombieWithAReusedNumber",
		Old: "	case err == nil && st.start != z.start:",
		New: "	case err == nil && st.start != z.start && !isPlanted(\"reused-number-buried\"):"},

	// Waiting and signals.
	{Name: "signal-without-128", File: "system_linux.go", Test: "TestManyWaiters",
		Old: "		x.status = 128 + uint32(info.status)&0x7f",
		New: ""},
	{Name: "pidfd-kept", File: "held.go", Test: "TestDeadBeforeClaimed",
		Old: "			case <-h.done:\n				h.release()",
		New: "			case <-h.done:\n				if !isPlanted(\"pidfd-kept\") {\n	h.release()\n	}"},
	{Name: "turn-kept", File: "held.go", Test: "TestWaitIsGivenBack",
		Old: "			h.turn <- struct{}{}\n			if err != nil {",
		New: "			if err == nil || !isPlanted(\"turn-kept\") {\n	h.turn <- struct{}{}\n	}\n			if err != nil {"},
	{Name: "the-dead-signalled", File: "held.go", Test: "TestSweepLeavesTheClaimed",
		Old: "h.owner.peek(unix.P_PIDFD, h.fd); dead || errors.Is(err, unix.ECHILD) {",
		New: "h.owner.peek(unix.P_PIDFD, h.fd); (dead || errors.Is(err, unix.ECHILD)) && !isPlanted(\"the-dead-signalled\") {"},

	// Kill trees.
	{Name: "tree-of-children-only", File: "killtree.go", Test: "TestKillTree",
		Old: "for i := 0; i < len(tree); i++ {",
		New: "for i := 0; i < len(tree) && (i == 0 || !isPlanted(\"tree-of-children-only\")); i++ {"},
	{Name: "tree-of-a-reused-number", File: "killtree.go", Test: "TestKillTreeSparesAReusedNumber",
		Old: "	if err == nil && (st.parent != parent.pid || st.start < parent.start) {",
		New: "	if err == nil && (st.parent != parent.pid || st.start < parent.start) && !isPlanted(\"tree-of-a-reused-number\") {"},
	{Name: "tree-into-a-shared-namespace", File: "killtree.go", Test: "TestKillTreeInASharedNamespace",
		Old: "	if ns.Shared() {",
		New: "	if ns.Shared() && !isPlanted(\"tree-into-a-shared-namespace\") {"},
	{Name: "tree-takes-from-windows", File: "killtree.go", Test: "TestKillTreeSparesOtherWindows",
		Old: "		if !claimed && o.owned(open, c.ns, c.seen) {",
		New: "		if !claimed && o.owned(open, c.ns, c.seen) && !isPlanted(\"tree-takes-from-windows\") {"},
	{Name: "tree-without-the-unfinished", File: "killtree.go", Test: "TestKillTreeFindsWhatAnUnfinishedCreateHasMade",
		Old: "		o.condemn(ns, p.held.start)",
		New: ""},

	// The fork.
	{Name: "fork-keeps-its-p", File: "fork_vfork.go", Test: "TestF11HeldExecve",
		Old: "	entersyscallblock()\n	beforeFork()\n	pid, errno = vforkChild(s)\n	afterFork()\n	exitsyscall()",
		New: "	beforeFork()\n	pid, errno = vforkChild(s)\n	afterFork()"},
	{Name: "fork-keeps-descriptors", File: "fork_linux.go", Test: "TestF11HeldExecve",
		Old: "	s.do(unix.SYS_CLOSE_RANGE, uintptr(len(fds)), maxDescriptor, 0, 0)",
		New: ""},
	{Name: "fork-ignores-its-end", File: "fork_linux.go", Test: "TestF11HeldExecveIsEnded", Crashes: true,
		Old: "	_ = retry(func() error { return sys.pidfdSignal(fd, unix.SIGKILL) })",
		New: "	_ = fd"},
	{Name: "fork-hides-an-error", File: "fork_linux.go", Test: "TestF11ForkErrors",
		Old: "errno == 0 && failed != 0 {",
		New: "errno == 0 && failed != 0 && !isPlanted(\"fork-hides-an-error\") {"},
	{Name: "fork-without-fork-lock", File: "fork_linux.go", Test: "TestF11ForkGate", Crashes: true,
		Old: "	if g.under == 0 {\n		syscall.ForkLock.Lock()\n	}\n	g.under++",
		New: "	if g.under++; g.under > 1 || !isPlanted(\"fork-without-fork-lock\") && g.under == 1 {\n	if g.under == 1 {\n	syscall.ForkLock.Lock()\n	}\n	}"},
	{Name: "fork-raises-the-limit", File: "fork_linux.go", Test: "TestF11FileLimit",
		Old: "nofile.Restore(); ok {",
		New: "nofile.Restore(); ok && !isPlanted(\"fork-raises-the-limit\") {"},
	{Name: "fork-keeps-its-turn", File: "fork_linux.go", Test: "TestF11HeldExecve",
		Old: "		turn.Do(pass)\n		for",
		New: "		if !isPlanted(\"fork-keeps-its-turn\") {\n	turn.Do(pass)\n	}\n		for"},
	{Name: "fork-in-our-group", File: "process.go", Test: "TestOwnProcessGroup",
		Old: "	attr.Setpgid = attr.Setpgid || !attr.Setsid",
		New: ""},
}
