package task

// Races that need a runtime which stops where the test wants it to.

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

// W4, row 12, row 21: Shutdown and a second Create while the first is in flight.
func TestW4Row21ShutdownDuringCreate(t *testing.T) {
	for name, at := range map[string]func(string) fake.Point{"before": fake.Before, "forked": fake.Forked, "after": fake.After} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			b, ctl := s.scripted(nil, fake.On(at(fake.Create), fake.Wait("go")), "sleep", "1000")
			create := b.beginCreate()
			ctl.Reached(t, at(fake.Create), 1)
			within(t, "shutdown", func() error { _, err := s.Shutdown(context.Background(), &task.ShutdownRequest{}); return err })
			select {
			case <-s.shutdown:
				t.Fatal("it shut down")
			default:
			}
			within(t, "second create", func() error {
				if _, err := s.Create(context.Background(), b.request); !errdefs.IsAlreadyExists(err) {
					return errors.New("it was not told that the id is taken")
				}
				return nil
			})
			ctl.Open(t, "go")
			r := ended(t, "create", create)
			if r.err != nil || b.state("").Pid != r.answer.Pid {
				t.Errorf("create: %v, %v", r.answer, r.err)
			}
			if n := ctl.Calls(t, fake.Create); n != 1 {
				t.Errorf("the runtime was asked %d times", n)
			}
		})
	}
}

// W4, invariant 23: Shutdown while the last container is being deleted, too.
func TestW4ShutdownDuringDelete(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.On(fake.Before(fake.Delete), fake.Wait("go")), "true")
	b.create()
	b.start("")
	b.wait("")
	del := begin(func() (*task.DeleteResponse, error) { return b.del("") })
	ctl.Reached(t, fake.Before(fake.Delete), 1)
	within(t, "shutdown", func() error { _, err := s.Shutdown(context.Background(), &task.ShutdownRequest{}); return err })
	select {
	case <-s.shutdown:
		t.Error("it shut down")
	default:
	}
	ctl.Open(t, "go")
	if r := ended(t, "delete", del); r.err != nil {
		t.Error(r.err)
	}
}

// Invariant 9 (#9103): init dies inside create. Create succeeds, the exit follows.
func TestIssue9103InitDiesInsideCreate(t *testing.T) {
	for name, at := range map[string]func(string) fake.Point{"forked": fake.Forked, "written": fake.Written, "after": fake.After} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			b, _ := s.scripted(nil, fake.On(at(fake.Create), fake.KillInit(9)), "sleep", "1000")
			pid := b.create()
			if status := b.wait(""); status != 137 {
				t.Errorf("status %d", status)
			}
			if _, err := b.Start(t.Context(), &task.StartRequest{ID: b.id}); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("start: %v", err)
			}
			if d := b.mustDelete(""); d.Pid != pid || d.ExitStatus != 137 {
				t.Errorf("delete answered %v", d)
			}
			b.is(order.Deleted, "")
			if got := b.kinds(b.id); !slices.Equal(got, []order.Kind{order.Created, order.Exited, order.Deleted}) {
				t.Errorf("events %v", got)
			}
		})
	}
}

// Invariant 10: init dies inside start. What the runtime says decides whether it was
// started, and the exit comes in either case.
func TestInvariant10InitDiesInsideStart(t *testing.T) {
	for name, c := range map[string]struct {
		at    fake.Point
		steps []fake.Step
		fails bool
	}{
		"before, refused": {fake.Before(fake.Start), []fake.Step{fake.KillInit(9)}, true},
		"after, success":  {fake.After(fake.Start), []fake.Step{fake.KillInit(9)}, false},
		"after, failure":  {fake.After(fake.Start), []fake.Step{fake.KillInit(9), fake.Fail("something else")}, true},
		"after, crash":    {fake.After(fake.Start), []fake.Step{fake.KillInit(9), fake.Crash(9)}, true},
		"lives, failure":  {fake.After(fake.Start), []fake.Step{fake.Fail("something else")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			b, _ := s.scripted(nil, fake.On(c.at, c.steps...), "sleep", "1000")
			b.create()
			wait := b.beginWait("")
			r := ended(t, "start", b.beginStart(""))
			if (r.err != nil) != c.fails {
				t.Errorf("start: %v", r.err)
			}
			if w := ended(t, "wait", wait); w.err != nil || w.answer.ExitStatus != 137 {
				t.Errorf("wait: %v, %v", w.answer, w.err)
			}
			b.mustDelete("")
			b.is(order.Deleted, "")
			want := []order.Kind{order.Created, order.Started, order.Exited, order.Deleted}
			if c.fails {
				want = []order.Kind{order.Created, order.Exited, order.Deleted}
			}
			if got := b.kinds(b.id); !slices.Equal(got, want) {
				t.Errorf("events %v, want %v", got, want)
			}
		})
	}
}

// W9: the runtime has started the exec and a later step fails. Its process is
// killed and reaped, has neither start nor exit, and holds nothing up.
func TestW9ExecThatFailsAfterItsStart(t *testing.T) {
	s := newShim(t)
	s.attachTime = time.Second
	b, ctl := s.scripted(nil, fake.On(fake.Before(fake.Exec), fake.Console(fake.ConsoleNever)), "sleep", "1000")
	b.create()
	b.start("")
	_, err := b.Exec(t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: "x", Terminal: true, Spec: anyJSON(`{"args":["sleep","1000"],"cwd":"/","env":["PATH=/bin:/usr/bin"]}`)})
	if err != nil {
		t.Fatal(err)
	}
	wait := b.beginWait("x")
	start := b.beginStart("x")
	ctl.Reached(t, "exec:end", 1)
	if r := ended(t, "start", start); !isDeadline(r.err) {
		t.Errorf("start: %v", r.err)
	}
	if n := len(ctl.Processes(t)); n != 1 {
		t.Errorf("%d processes live when the start is answered, want init alone", n)
	}
	if w := ended(t, "wait", wait); !errdefs.IsFailedPrecondition(w.err) {
		t.Errorf("wait: %v, %v", w.answer, w.err)
	}
	if st := b.state("x"); st.Status != apitypes.Status_CREATED || st.Pid != 0 {
		t.Errorf("state %v", st)
	}
	if err := b.kill("", 9); err != nil {
		t.Error(err)
	}
	within(t, "init's exit", func() error { b.wait(""); return nil })
	b.mustDelete("")
	for _, k := range b.kinds(b.id) {
		if k == order.ExecStarted {
			t.Error("it was announced")
		}
	}
}

// W17, rows 52 and 53, invariant 14: the client goes away while its call runs. The
// call comes to its end; who asks again is told so, and there are never two processes.
func TestW17Row53ClientGoesAway(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.On(fake.Forked(fake.Create), fake.Wait("create")).
		And(fake.Before(fake.Start), fake.Wait("start")).And(fake.Forked(fake.Exec), fake.Wait("exec")), "sleep", "1000")
	abandon := func(at fake.Point, gate string, call func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := begin(func() (struct{}, error) { return struct{}{}, call(ctx) })
		ctl.Reached(t, at, 1)
		cancel()
		ctl.Open(t, gate)
		ended(t, gate, c)
	}
	abandon(fake.Forked(fake.Create), "create", func(ctx context.Context) error { _, err := b.Create(ctx, b.request); return err })
	if _, err := b.Create(t.Context(), b.request); !errdefs.IsAlreadyExists(err) {
		t.Errorf("create again: %v", err)
	}
	if st := b.state(""); st.Status != apitypes.Status_CREATED || st.Pid == 0 {
		t.Fatalf("state %v", st)
	}
	abandon(fake.Before(fake.Start), "start", func(ctx context.Context) error {
		_, err := b.Start(ctx, &task.StartRequest{ID: b.id})
		return err
	})
	if _, err := b.Start(t.Context(), &task.StartRequest{ID: b.id}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("start again: %v", err)
	}
	if st := b.state(""); st.Status != apitypes.Status_RUNNING {
		t.Fatalf("state %v", st)
	}
	if err := b.addExec("x", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	abandon(fake.Forked(fake.Exec), "exec", func(ctx context.Context) error {
		_, err := b.Start(ctx, &task.StartRequest{ID: b.id, ExecID: "x"})
		return err
	})
	if _, err := b.Start(t.Context(), &task.StartRequest{ID: b.id, ExecID: "x"}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("start of the exec again: %v", err)
	}
	if st := b.state("x"); st.Status != apitypes.Status_RUNNING {
		t.Errorf("state %v", st)
	}
	if n := len(ctl.Processes(t)); n != 2 {
		t.Errorf("%d processes", n)
	}
	if err := b.kill("x", 9); err != nil {
		t.Error(err)
	}
	b.wait("x")
}

// Row 19: CloseIO before start is remembered, twice is no error, without stdin
// neither.
func TestRow19CloseIO(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	closeIO := func(exec string) {
		t.Helper()
		within(t, "CloseIO", func() error {
			_, err := b.CloseIO(context.Background(), &task.CloseIORequest{ID: b.id, ExecID: exec, Stdin: true})
			return err
		})
	}
	b.create()
	closeIO("") // no stdin
	b.start("")
	in, out := s.dir+"/in", ""
	if err := mkfifo(in); err != nil {
		t.Fatal(err)
	}
	out, content := s.output("out")
	_, err := b.Exec(t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: "cat", Stdin: in, Stdout: out, Spec: anyJSON(`{"args":["cat"],"cwd":"/","env":["PATH=/bin:/usr/bin"]}`)})
	if err != nil {
		t.Fatal(err)
	}
	closeIO("cat")
	closeIO("cat")
	b.start("cat")
	if status := b.wait("cat"); status != 0 {
		t.Errorf("status %d", status)
	}
	closeIO("cat") // after the exit
	b.mustDelete("cat")
	if got := content(); got != "" {
		t.Errorf("cat printed %q", got)
	}
}

// Row 20: pause while paused and a delete of what is paused are refused, a kill thaws.
func TestRow20PausedCells(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.On(fake.Before(fake.Pause), fake.Wait("pause")), "sleep", "1000")
	b.create()
	b.start("")
	pause := func() error { _, err := b.Pause(context.Background(), &task.PauseRequest{ID: b.id}); return err }
	first := begin(func() (struct{}, error) { return struct{}{}, pause() })
	ctl.Reached(t, fake.Before(fake.Pause), 1)
	if err := pause(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pause while pausing: %v", err)
	}
	if st := b.state(""); st.Status != apitypes.Status_PAUSING {
		t.Errorf("state %v", st.Status)
	}
	ctl.Open(t, "pause")
	if r := ended(t, "pause", first); r.err != nil {
		t.Fatal(r.err)
	}
	if err := pause(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pause while paused: %v", err)
	}
	if _, err := b.del(""); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete while paused: %v", err)
	}
	if err := b.kill("", 9); err != nil {
		t.Error(err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("")
}

// Row 22: what only looks answers in every state, NotFound where there is nothing.
func TestRow22LooksInEveryState(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.On(fake.Before(fake.Create), fake.Wait("create")), "sleep", "1000")
	none := func(when string) {
		t.Helper()
		within(t, "State "+when, func() error {
			if _, err := b.find2(); !errdefs.IsNotFound(err) {
				return errors.New("it is not NotFound")
			}
			return nil
		})
		within(t, "Connect "+when, func() error { _, err := b.Connect(context.Background(), &task.ConnectRequest{ID: b.id}); return err })
	}
	none("before create")
	create := b.beginCreate()
	ctl.Reached(t, fake.Before(fake.Create), 1)
	none("during create")
	ctl.Open(t, "create")
	ended(t, "create", create)
	b.answers()
	b.start("")
	b.exec("x", "sleep", "1000")
	b.answers("x")
	if err := b.kill("", 9); err != nil {
		t.Error(err)
	}
	b.wait("")
	b.answers("x")
	b.mustDelete("x")
	b.mustDelete("")
	none("after delete")
}
