package task

// Rows 29 to 38: the runtime is missing, fails, lies, floods, crashes.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

// Row 29: a runtime, or a logging binary, that cannot be run is named in the error,
// and nothing is left.
func TestRow29RuntimeThatCannotBeRun(t *testing.T) {
	for name, c := range map[string]struct {
		path string
		is   func(error) bool
	}{
		"missing":        {fake.Missing(t), errdefs.IsFailedPrecondition},
		"not executable": {fake.NotExecutable(t), errdefs.IsFailedPrecondition},
		"a directory":    {fake.Directory(t), errdefs.IsFailedPrecondition},
		"wrong machine":  {fake.WrongArch(t), errdefs.IsFailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
			b.use(c.path, ctl.Root())
			_, err := b.Create(t.Context(), b.request)
			if !c.is(err) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("create: %v", err)
			}
			b.leavesNothing(ctl)
		})
		t.Run("logger "+name, func(t *testing.T) {
			s := newShim(t)
			b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
			b.request.Stdout = "binary://" + c.path
			_, err := b.Create(t.Context(), b.request)
			if !c.is(err) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("create: %v", err)
			}
			b.leavesNothing(ctl)
			if n := ctl.Calls(t, fake.Create); n != 0 {
				t.Errorf("the runtime was called %d times", n)
			}
		})
	}
}

// Row 30: whatever a failing runtime says and however much, the error has its last
// words and is short; a later Create of the same id finds nothing in its way.
func TestRow30RuntimeThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		steps []fake.Step
		says  string
	}{
		"JSON log":     {[]fake.Step{fake.Fail("the moon is wrong")}, "the moon is wrong"},
		"plain stderr": {[]fake.Step{fake.FailPlain("plainly wrong")}, "exit status 1"},
		"nothing":      {[]fake.Step{fake.Exit(3)}, "exit status 3"},
		"a flood":      {[]fake.Step{fake.FloodStderr(64 << 20), fake.Fail("after the flood")}, "after the flood"},
		"a log flood":  {[]fake.Step{fake.FloodLog(4 << 20), fake.Fail("at the end of the log")}, "at the end of the log"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			b, ctl := s.scripted(nil, fake.On(fake.Before(fake.Create), c.steps...).And(fake.Before(fake.Exec), c.steps...), "sleep", "1000")
			_, err := b.Create(t.Context(), b.request)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "OCI runtime create failed") || len(err.Error()) > 8<<10 {
				t.Errorf("create: %d bytes: %.300v", len(fmt.Sprint(err)), err)
			}
			b.leavesNothing(ctl)
			ctl.Become(t, change(fake.On(fake.Before(fake.Exec), c.steps...)))
			b.create()
			b.start("")
			if err := b.addExec("x", "true"); err != nil {
				t.Fatal(err)
			}
			r := ended(t, "start", b.beginStart("x"))
			if r.err == nil || !strings.Contains(r.err.Error(), c.says) || len(r.err.Error()) > 8<<10 {
				t.Errorf("exec: %.300v", r.err)
			}
		})
	}
}

// Row 30, W9: a runtime that has made its process and then fails leaves that to us.
func TestRow30RuntimeThatFailsLate(t *testing.T) {
	for name, at := range map[string]func(string) fake.Point{"forked": fake.Forked, "written": fake.Written, "after": fake.After} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			b, ctl := s.scripted(nil, fake.On(at(fake.Create), fake.Fail("too late").First("create")).And(at(fake.Exec), fake.Fail("too late")), "sleep", "1000")
			if _, err := b.Create(t.Context(), b.request); err == nil {
				t.Fatal("created")
			}
			b.leavesNothing(ctl)
			b.create()
			b.start("")
			before := len(ctl.Processes(t))
			if err := b.addExec("x", "sleep", "1000"); err != nil {
				t.Fatal(err)
			}
			if r := ended(t, "start", b.beginStart("x")); r.err == nil {
				t.Error("the exec was started")
			}
			until(t, "the exec's process is left", func() bool { return len(ctl.Processes(t)) == before })
			if st := b.state("x"); st.Status != apitypes.Status_CREATED || st.Pid != 0 {
				t.Errorf("state %v", st)
			}
		})
	}
}

// Row 31 (R5): what a pid file says is believed only if it is proved. The container
// fails, is cleaned up, and nobody is signalled.
func TestRow31PidFiles(t *testing.T) {
	bystander := stranger(t)
	for name, says := range map[string]string{
		"empty": "", "words": "abc", "minus one": "-1", "zero": "0", "one": "1", "ours": "{parent}",
		"the runtime's": "{runtime}", "dead": "{dead}", "huge": "99999999999999999999", "two": "{pid} {pid}",
		"a stranger's": fmt.Sprint(bystander),
	} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			lie := fake.PidFile(says)
			b, ctl := s.scripted(nil, fake.On(fake.Forked(fake.Create), lie.First("c")).And(fake.Forked(fake.Exec), lie), "sleep", "1000")
			row31(t, b, ctl)
		})
	}
	t.Run("none", func(t *testing.T) {
		s := newShim(t)
		b, ctl := s.scripted(nil, fake.On(fake.Forked(fake.Create), fake.NoPidFile().First("c")).And(fake.Forked(fake.Exec), fake.NoPidFile()), "sleep", "1000")
		row31(t, b, ctl)
	})
	if !livesStill(bystander) {
		t.Error("a stranger was killed")
	}
}

func row31(t *testing.T, b *box, ctl *fake.Control) {
	t.Helper()
	if _, err := b.Create(t.Context(), b.request); !errdefs.IsInternal(err) && !errdefs.IsFailedPrecondition(err) {
		t.Errorf("create: %v", err)
	}
	b.leavesNothing(ctl)
	b.create()
	b.start("")
	before := len(ctl.Processes(t))
	if err := b.addExec("x", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	if r := ended(t, "start", b.beginStart("x")); r.err == nil {
		t.Error("the exec was started")
	}
	until(t, "the exec's process is left", func() bool { return len(ctl.Processes(t)) == before })
	b.answers("x")
}

// Row 33: a runtime that dies between the fork of init and the pid file. In the
// host's pid namespace its orphan is found by the cgroup.
func TestRow33RuntimeThatCrashes(t *testing.T) {
	for name, where := range map[string]struct {
		at   func(string) fake.Point
		host bool
	}{
		"before":            {at: fake.Before},
		"forked":            {at: fake.Forked},
		"written":           {at: fake.Written},
		"after":             {at: fake.After},
		"forked, host pid":  {fake.Forked, true},
		"written, host pid": {fake.Written, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			p := fake.On(where.at(fake.Create), fake.Crash(9).First("c")).And(where.at(fake.Exec), fake.Crash(9))
			b, ctl := s.scripted(nil, p, "sleep", "1000")
			if where.host {
				b, ctl = s.scripted(hostPID, p, "sleep", "1000")
			}
			if _, err := b.Create(t.Context(), b.request); !errdefs.IsInternal(err) || !strings.Contains(err.Error(), "signal 9") {
				t.Errorf("create: %v", err)
			}
			b.leavesNothing(ctl)
			b.create()
			b.start("")
			if err := b.addExec("x", "sleep", "1000"); err != nil {
				t.Fatal(err)
			}
			if r := ended(t, "start", b.beginStart("x")); !errdefs.IsInternal(r.err) {
				t.Errorf("exec: %v", r.err)
			}
			if !where.host { // else it goes with the container, below
				until(t, "the exec's process is left", func() bool { return len(ctl.Processes(t)) == 1 })
			}
			if err := b.kill("", 9); err != nil {
				t.Error(err)
			}
			if status := b.wait(""); status != 137 {
				t.Errorf("status %d", status)
			}
			b.mustDelete("")
			gone(t, ctl)
		})
	}
}

// Row 34: answers that are no answers. Whether a container is there is asked for
// when a call fails; nonsense is no reason to think that it is gone.
func TestRow34NonsenseForAnAnswer(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	b.start("")
	ctl.Become(t, change(fake.On(fake.Before(fake.State), fake.Stdout("\x00{\"status\":[]}}"), fake.Exit(0)).
		And(fake.Before(fake.Ps), fake.Stdout("[-1,"), fake.Exit(0)).
		And(fake.Before(fake.Pause), fake.Fail("not today")).
		And(fake.Before(fake.Delete), fake.Fail("nor tomorrow"))))
	if _, err := b.Pause(t.Context(), &task.PauseRequest{ID: b.id}); err == nil || errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "not today") {
		t.Errorf("pause: %v", err)
	}
	b.answers()
	if err := b.kill("", 9); err != nil {
		t.Error(err)
	}
	b.wait("")
	if _, err := b.del(""); err == nil || errdefs.IsNotFound(err) {
		t.Errorf("delete: %v", err)
	}
	b.answers()
	ctl.Become(t, change(fake.Profile{}))
	b.mustDelete("")
}

// Row 35: a console socket that the runtime gets wrong. Init's and an exec's start
// fail, with nothing left of them.
func TestRow35Consoles(t *testing.T) {
	for _, how := range []fake.ConsoleFault{fake.ConsoleNever, fake.ConsoleSilent, fake.ConsoleNoFD, fake.ConsoleTwoFDs, fake.ConsoleFile, fake.ConsoleNotATTY} {
		t.Run(string(how), func(t *testing.T) {
			s := newShim(t)
			s.attachTime = time.Second
			b, ctl := s.scripted(nil, fake.On(fake.Before(fake.Exec), fake.Console(how)), "sleep", "1000")
			b.create()
			b.start("")
			_, err := b.Exec(t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: "tty", Terminal: true, Spec: anyJSON(`{"args":["sleep","1000"],"cwd":"/","env":["PATH=/bin:/usr/bin"]}`)})
			if err != nil {
				t.Fatal(err)
			}
			r := ended(t, "start", b.beginStart("tty"))
			if !errors.Is(r.err, context.DeadlineExceeded) && !errdefs.IsInternal(r.err) {
				t.Errorf("start: %v", r.err)
			}
			until(t, "the exec's process is left", func() bool { return len(ctl.Processes(t)) == 1 })
			if st := b.state("tty"); st.Status != apitypes.Status_CREATED {
				t.Errorf("state %v", st)
			}
			b.mustDelete("tty")
		})
	}
}

// Row 35: one that connects twice is served once.
func TestRow35ConsoleTwice(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.On(fake.Before(fake.Exec), fake.Console(fake.ConsoleTwice)), "sleep", "1000")
	b.create()
	b.start("")
	_, err := b.Exec(t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: "tty", Terminal: true, Spec: anyJSON(`{"args":["test","-t","0"],"cwd":"/","env":["PATH=/bin:/usr/bin"]}`)})
	if err != nil {
		t.Fatal(err)
	}
	b.start("tty")
	if status := b.wait("tty"); status != 0 {
		t.Errorf("status %d: no terminal", status)
	}
	b.mustDelete("tty")
}

// Row 36: a grandchild of the runtime that holds its stdio, which is the container's,
// does not keep Delete waiting longer than the drain's bound, nor the exit at all.
func TestRow36GrandchildHoldsTheStdio(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.On(fake.Before(fake.Exec), fake.Grandchild()).And(fake.Before(fake.Kill), fake.Grandchild()), "sleep", "1000")
	b.create()
	b.start("")
	path, content := s.output("out")
	_, err := b.Exec(t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: "x", Stdout: path, Spec: anyJSON(`{"args":["echo","hello"],"cwd":"/","env":["PATH=/bin:/usr/bin"]}`)})
	if err != nil {
		t.Fatal(err)
	}
	b.start("x")
	ctl.Reached(t, "exec:grandchild", 1)
	began := time.Now()
	if status := b.wait("x"); status != 0 {
		t.Errorf("status %d", status)
	}
	if took := time.Since(began); took > soon {
		t.Errorf("the exit took %v", took)
	}
	b.mustDelete("x")
	if took := time.Since(began); took > patience {
		t.Errorf("the delete took %v", took)
	}
	if got := content(); got != "hello\n" {
		t.Errorf("it printed %q", got)
	}
	within(t, "kill", func() error { return b.kill("", 9) })
	b.wait("")
	b.mustDelete("")
}

// Row 37: a container that the runtime does not know any more is deleted all the
// same; a runtime that only says so, in words, is not believed.
func TestRow37DeleteOfWhatDoesNotExist(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.On(fake.Before(fake.Delete), fake.Fail("container does not exist").First("lie")), "sh", "-c", "exit 4")
	b.create()
	b.start("")
	b.wait("")
	if _, err := b.del(""); err == nil {
		t.Error("the lie was believed")
	}
	ctl.Become(t, change(fake.On(fake.Before(fake.Delete), fake.Forget())))
	if d := b.mustDelete(""); d.ExitStatus != 4 {
		t.Errorf("status %d", d.ExitStatus)
	}
	for _, dir := range cgroupsOf(b.id) {
		t.Errorf("%s is left", dir)
	}
}

// Row 38: a kill that claims to have been sent, and was not.
func TestRow38KillThatDoesNotKill(t *testing.T) {
	for name, change := range map[string]bool{"private": false, "host pid": true} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			b, ctl := s.scripted(nil, fake.On(fake.Before(fake.Kill), fake.Exit(0)), "sleep", "1000")
			if change {
				b, ctl = s.scripted(hostPID, fake.On(fake.Before(fake.Kill), fake.Exit(0)), "sleep", "1000")
			}
			b.create()
			b.start("")
			if err := b.kill("", 9); err != nil {
				t.Fatal(err)
			}
			if status := b.wait(""); status != 137 {
				t.Errorf("status %d", status)
			}
			b.is(order.Exited, "")
			b.mustDelete("")
			gone(t, ctl)
		})
	}
}
