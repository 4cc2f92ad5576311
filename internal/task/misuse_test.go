package task

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/order"
)

// Calls out of turn: rows 12 to 18.

// Row 12: a second Create does not disturb the first, and after its delete the id is
// free.
func TestRow12CreateTwice(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	pid := b.create()
	if _, err := s.Create(t.Context(), b.request); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a second create: %v, want AlreadyExists", err)
	}
	b.start("")
	if st := b.state(""); st.Pid != pid || st.Status != apitypes.Status_RUNNING {
		t.Errorf("the first: %v", st)
	}
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	b.mustDelete("")
	again := s.container(nil, "true")
	again.request.ID, again.id = b.id, b.id
	if got := again.create(); got == pid {
		t.Errorf("pid %d again", got)
	}
}

// Row 13: of starts at the same time one wins, of init and of an exec.
func TestRow13ConcurrentStarts(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	for _, exec := range []string{"", "x"} {
		if exec != "" {
			if err := b.addExec(exec, "sleep", "1000"); err != nil {
				t.Fatal(err)
			}
		}
		const n = 6
		errs := make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { _, errs[i] = s.Start(context.Background(), &task.StartRequest{ID: b.id, ExecID: exec}) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errdefs.IsFailedPrecondition(err):
				t.Errorf("process %q: a loser was told %v", exec, err)
			}
		}
		if won != 1 {
			t.Errorf("process %q: %d starts won", exec, won)
		}
		kind := order.Started
		if exec != "" {
			kind = order.ExecStarted
		}
		b.is(kind, exec)
	}
}

// Row 13 (R1): any number of starts of an exec whose start failed are refused, at once
// or at the same time, and the shim goes on.
func TestRow13StartAfterAFailedStart(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	if err := b.addExec("x", "no-such-binary"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), &task.StartRequest{ID: b.id, ExecID: "x"}); err == nil {
		t.Fatal("it started")
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := s.Start(context.Background(), &task.StartRequest{ID: b.id, ExecID: "x"}); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("a later start: %v, want FailedPrecondition", err)
			}
		})
	}
	wg.Wait()
	b.mustDelete("x")
	b.exec("y", "true")
	if status := b.wait("y"); status != 0 {
		t.Errorf("the next exec: status %d", status)
	}
}

// Row 14 (#10634): an exec that was added in time and is started when init has exited
// is refused, and so is a new one.
func TestRow14ExecAfterInitsExit(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	if err := b.addExec("early", "true"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("before start: %v", err)
	}
	b.start("")
	if err := b.addExec("waiting", "true"); err != nil {
		t.Fatal(err)
	}
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	if _, err := s.Start(t.Context(), &task.StartRequest{ID: b.id, ExecID: "waiting"}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("start after init's exit: %v", err)
	}
	if err := b.addExec("late", "true"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exec after init's exit: %v", err)
	}
	b.mustDelete("waiting")
}

// Row 15: of Execs with one id at the same time one wins; after its delete the id may
// be used again, any number of times.
func TestRow15ExecIDs(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	for round := range 3 {
		errs := make(chan error, 5)
		for range cap(errs) {
			go func() { errs <- b.addExec("x", "sh", "-c", "exit "+strconv.Itoa(round)) }()
		}
		won := 0
		for range cap(errs) {
			if err := <-errs; err == nil {
				won++
			} else if !errdefs.IsAlreadyExists(err) {
				t.Errorf("a loser was told %v", err)
			}
		}
		if won != 1 {
			t.Errorf("%d won", won)
		}
		b.start("x")
		if status := b.wait("x"); status != uint32(round) {
			t.Errorf("round %d: status %d", round, status)
		}
		b.mustDelete("x")
	}
}

// Row 16: what is created and not started is deleted at once; a second delete finds
// nothing, of init and of an exec.
func TestRow16Deletes(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	if err := b.addExec("x", "true"); err != nil {
		t.Fatal(err)
	}
	b.mustDelete("x")
	if _, err := b.del("x"); !errdefs.IsNotFound(err) {
		t.Errorf("second delete of an exec: %v", err)
	}
	if _, err := b.del(""); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete of what runs: %v", err)
	}
	c := s.container(nil, "sleep", "1000")
	c.create()
	c.mustDelete("")
	if _, err := c.del(""); !errdefs.IsNotFound(err) {
		t.Errorf("second delete of init: %v", err)
	}
}

// Row 17: Kill of everything in a shared pid namespace reaches what init has started,
// through the cgroup; afterwards there is nothing to be killed.
func TestRow17KillAll(t *testing.T) {
	s := newShim(t)
	b := s.container(hostPID, "sh", "-c", "sleep 1000 & sleep 1000 & wait")
	b.create()
	b.start("")
	b.exec("x", "sleep", "1000")
	if _, err := s.Kill(t.Context(), &task.KillRequest{ID: b.id, Signal: 9, All: true}); err != nil {
		t.Fatal(err)
	}
	if status := b.wait("x"); status != 137 {
		t.Errorf("exec: status %d", status)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("init: status %d", status)
	}
	// Of a stopped task init is named, which is dead.
	if p, err := s.Pids(t.Context(), &task.PidsRequest{ID: b.id}); err != nil || len(p.Processes) > 1 {
		t.Errorf("processes %v, %v", p, err)
	}
	if _, err := s.Kill(t.Context(), &task.KillRequest{ID: b.id, Signal: 9, All: true}); !errdefs.IsNotFound(err) {
		t.Errorf("kill after exit: %v, want NotFound", err)
	}
}

// Row 18: waiters that give up leave nothing behind, and a Wait after Delete finds
// nothing.
func TestRow18WaitersLeaveNothing(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	const n = 200
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := s.Wait(ctx, &task.WaitRequest{ID: b.id}); err == nil {
				t.Error("a cancelled Wait was answered")
			}
		})
	}
	cancel()
	wg.Wait()
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > before+5 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if after := runtime.NumGoroutine(); after > before+5 {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	first, err := s.Wait(t.Context(), &task.WaitRequest{ID: b.id})
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Wait(t.Context(), &task.WaitRequest{ID: b.id})
	if err != nil || again.ExitStatus != first.ExitStatus || !again.ExitedAt.AsTime().Equal(first.ExitedAt.AsTime()) {
		t.Errorf("answers %v and %v, %v", first, again, err)
	}
	d := b.mustDelete("")
	if d.ExitStatus != first.ExitStatus || !d.ExitedAt.AsTime().Equal(first.ExitedAt.AsTime()) {
		t.Errorf("delete answered %v, wait %v", d, first)
	}
	if _, err := s.Wait(t.Context(), &task.WaitRequest{ID: b.id}); !errdefs.IsNotFound(err) {
		t.Errorf("wait after delete: %v, want NotFound", err)
	}
}
