package children

// An Owner without CAP_SYS_PTRACE: the test binary runs itself once more without
// it. F19, FAULTS.md.

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// noPtraceEnv is set in the test binary that has no CAP_SYS_PTRACE.
const noPtraceEnv = "CHILDREN_TEST_NO_PTRACE"

// playDrop becomes the test binary again, without the capability: a program that
// root executes has what the thread's bounding set allows (capabilities(7)).
func playDrop() {
	runtime.LockOSThread()
	check(unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0))
	self, err := os.Executable()
	check(err)
	env := append(os.Environ(), noPtraceEnv+"=1")
	check(unix.Exec(self, []string{self, "-test.v", "-test.run=^TestF19WithoutPtrace$"}, env))
}

// F19: without CAP_SYS_PTRACE processes of other users are claimed, swept and
// killed with their call.
func TestF19WithoutPtrace(t *testing.T) {
	if os.Getenv(noPtraceEnv) != "" {
		t.Run("claim", claimWithoutPtrace)
		t.Run("sweep", sweepWithoutPtrace)
		t.Run("kill-tree", killTreeWithoutPtrace)
		return
	}
	o := owner(t, kernel{})
	cmd := part("drop")
	cmd.Stderr = os.Stderr
	p, out, err := start(o, cmd)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait(impatient(t))
	if err != nil || exit.Status != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
	text := string(out())
	if n := strings.Count(text, "    --- PASS: TestF19WithoutPtrace/"); n != 3 || t.Failed() {
		t.Errorf("%d of 3 parts passed:\n%s", n, text)
	}
}

// unreadable asserts that the test shows something: the link cannot be read.
func unreadable(t *testing.T, pid int) {
	t.Helper()
	if _, err := (kernel{}).readLink(procPath(pid, "/ns/pid")); !errors.Is(err, unix.EACCES) {
		t.Errorf("the namespace of %d can be read: %v", pid, err)
	}
}

func claimWithoutPtrace(t *testing.T) {
	if maySeeNamespaces() {
		t.Fatal("this program has the capability")
	}
	o := owner(t, kernel{})
	user := call{Argv: []string{"sleep", "3600"}, UID: 1000}
	host := claimed(t, o, o.OwnNamespace(), user)
	unreadable(t, host.Pid())
	user.New = true
	private := NewNamespace()
	init := claimed(t, o, private, user)
	exec := claimed(t, o, private, call{Argv: user.Argv, UID: 1000, New: true}) // which it is cannot be told
	if private.Shared() {
		t.Error("a process below our namespace was taken for one in it")
	}
	lying := NewNamespace()
	inOurs := claimed(t, o, lying, call{Argv: user.Argv, UID: 1000})
	if !lying.Shared() {
		t.Error("a process in our namespace was not seen to be")
	}
	w := o.Begin(o.OwnNamespace())
	pid := run(t, o, user.command(t))[0]
	if _, err := w.Claim(pid); !errors.Is(err, ErrWrongNamespace) {
		t.Errorf("a process below our namespace, claimed for ours: %v", err)
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	w.Close()
	for _, c := range []*Child{host, init, exec, inOurs} {
		end(t, c)
	}
}

// What nobody claims is reaped, and the sweep comes to rest.
func sweepWithoutPtrace(t *testing.T) {
	o := owner(t, kernel{})
	for _, c := range []call{{Argv: []string{"true"}, UID: 1000}, {Argv: []string{"true"}, UID: 1000, New: true}} {
		run(t, o, c.command(t))
	}
	eventually(t, "the orphans are reaped", func() string {
		if n := zombies(t); n > 0 {
			return "not yet"
		}
		return ""
	})
	w := o.Begin(o.OwnNamespace())
	pid := run(t, o, call{Argv: []string{"true"}, UID: 1000}.command(t))[0]
	eventually(t, "it is dead", func() string {
		if st, err := statOf(kernel{}, pid); err != nil || !st.dead() {
			return "not yet"
		}
		return ""
	})
	if o.observe([]int{pid}) {
		t.Error("a namespace that cannot be read is looked at again for ever")
	}
	w.Close()
}

func killTreeWithoutPtrace(t *testing.T) {
	o := owner(t, kernel{})
	argv, marker := sleeper(t, "noptrace")
	ns := NewNamespace()
	p, err := o.Start(call{Argv: argv, New: true, Setsid: true, Hang: true, UID: 1000}.command(t))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is there", func() string {
		pids := alive(t, "sleep\x00"+marker)
		if len(pids) != 1 {
			return "not yet"
		}
		unreadable(t, pids[0])
		return ""
	})
	if err := p.Signal(unix.SIGKILL); err != nil { // not by us: the out-of-memory killer, say
		t.Error(err)
	}
	if _, err := p.Wait(impatient(t)); err != nil {
		t.Error(err)
	}
	if err := p.KillTree(ns); err != nil {
		t.Error(err)
	}
	noneAlive(t, marker)
}
