package task

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"
)

func anyJSON(s string) *anypb.Any { return &anypb.Any{Value: []byte(s)} }

// Rows 1, 3, 5, 9: what cannot be is refused before anything is done.
func TestRow01to09Refusals(t *testing.T) {
	s := newShim(t)
	ctx := t.Context()
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	good := anyJSON(`{"args":["true"],"cwd":"/"}`)
	execWith := func(id string, spec *anypb.Any) error {
		_, err := s.Exec(ctx, &task.ExecProcessRequest{ID: b.id, ExecID: id, Spec: spec})
		return err
	}
	createWith := func(id string) error {
		r := &task.CreateTaskRequest{ID: id, Bundle: b.bundle}
		_, err := s.Create(ctx, r)
		return err
	}
	cases := []struct {
		name string
		err  error
		is   func(error) bool
	}{
		{"empty id", createWith(""), errdefs.IsInvalidArgument},
		{"id with a slash", createWith("a/b"), errdefs.IsInvalidArgument},
		{"id that leaves", createWith(".."), errdefs.IsInvalidArgument},
		{"long id", createWith(strings.Repeat("a", 77)), errdefs.IsInvalidArgument},
		{"exec id that leaves (R4)", execWith("../x", good), errdefs.IsInvalidArgument},
		{"empty exec id", execWith("", good), errdefs.IsInvalidArgument},
		{"no spec", execWith("a", nil), errdefs.IsInvalidArgument},
		{"null spec (row 25)", execWith("a", anyJSON("null")), errdefs.IsInvalidArgument},
		{"spec that is no JSON (row 25)", execWith("a", anyJSON("{")), errdefs.IsInvalidArgument},
		{"spec without args (row 25)", execWith("a", anyJSON(`{"cwd":"/"}`)), errdefs.IsInvalidArgument},
		{"NUL in args (row 25)", execWith("a", anyJSON(`{"args":["a\u0000b"],"cwd":"/"}`)), errdefs.IsInvalidArgument},
		{"huge spec (row 25)", execWith("a", &anypb.Any{Value: make([]byte, maxExecSpec+1)}), errdefs.IsInvalidArgument},
		{"signal 0 (row 9)", b.kill("", 0), errdefs.IsInvalidArgument},
		{"signal 65 (row 9)", b.kill("", 65), errdefs.IsInvalidArgument},
		{"signal 2^31 (row 9)", b.kill("", 1<<31), errdefs.IsInvalidArgument},
		{"unknown exec (row 3)", b.kill("nobody", 9), errdefs.IsNotFound},
	}
	for _, c := range cases {
		if !c.is(c.err) {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
	if st := b.state(""); st.Pid == 0 {
		t.Error("the container is gone")
	}
}

// Row 3: every call says NotFound of a container or exec that is not there.
func TestRow03UnknownIDs(t *testing.T) {
	s := newShim(t)
	ctx := t.Context()
	b := s.container(nil, "sleep", "1000")
	b.create()
	calls := map[string]func(id, exec string) error{
		"State":  func(id, e string) error { _, err := s.State(ctx, &task.StateRequest{ID: id, ExecID: e}); return err },
		"Start":  func(id, e string) error { _, err := s.Start(ctx, &task.StartRequest{ID: id, ExecID: e}); return err },
		"Delete": func(id, e string) error { _, err := s.Delete(ctx, &task.DeleteRequest{ID: id, ExecID: e}); return err },
		"Kill": func(id, e string) error {
			_, err := s.Kill(ctx, &task.KillRequest{ID: id, ExecID: e, Signal: 9})
			return err
		},
		"Wait": func(id, e string) error { _, err := s.Wait(ctx, &task.WaitRequest{ID: id, ExecID: e}); return err },
		"CloseIO": func(id, e string) error {
			_, err := s.CloseIO(ctx, &task.CloseIORequest{ID: id, ExecID: e})
			return err
		},
		"ResizePty": func(id, e string) error {
			_, err := s.ResizePty(ctx, &task.ResizePtyRequest{ID: id, ExecID: e})
			return err
		},
	}
	for name, call := range calls {
		if err := call("nobody", ""); !errdefs.IsNotFound(err) {
			t.Errorf("%s of an unknown container: %v", name, err)
		}
		if err := call(b.id, "nobody"); !errdefs.IsNotFound(err) {
			t.Errorf("%s of an unknown exec: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"Pids":       second(s.Pids(ctx, &task.PidsRequest{ID: "nobody"})),
		"Pause":      second(s.Pause(ctx, &task.PauseRequest{ID: "nobody"})),
		"Resume":     second(s.Resume(ctx, &task.ResumeRequest{ID: "nobody"})),
		"Stats":      second(s.Stats(ctx, &task.StatsRequest{ID: "nobody"})),
		"Update":     second(s.Update(ctx, &task.UpdateTaskRequest{ID: "nobody"})),
		"Checkpoint": second(s.Checkpoint(ctx, &task.CheckpointTaskRequest{ID: "nobody"})),
	} {
		if !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// Row 12, invariant 22: of many Creates with one id one wins, the others are told
// that it exists.
func TestRow12ConcurrentCreates(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	const n = 8
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { _, errs[i] = s.Create(context.Background(), b.request) })
	}
	wg.Wait()
	var won int
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errdefs.IsAlreadyExists(err):
			t.Errorf("a loser was told %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d creates won", won)
	}
}

// Rows 13 to 16: starts, execs and deletes out of turn.
func TestRow13to16OutOfTurn(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	if err := b.addExec("early", "true"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("row 14, exec before start: %v", err)
	}
	b.start("")
	if _, err := s.Start(t.Context(), &task.StartRequest{ID: b.id}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("row 13, second start: %v", err)
	}
	if _, err := b.del(""); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("row 16, delete of a running init: %v", err)
	}
	b.exec("x", "true")
	if err := b.addExec("x", "true"); !errdefs.IsAlreadyExists(err) {
		t.Errorf("row 15, same exec id: %v", err)
	}
	b.wait("x")
	if err := b.kill("x", 9); !errdefs.IsNotFound(err) {
		t.Errorf("row 17, kill after exit: %v", err)
	}
	b.mustDelete("x")
	if _, err := b.del("x"); !errdefs.IsNotFound(err) {
		t.Errorf("row 16, second delete: %v", err)
	}
	b.exec("x", "true") // row 15: reuse after Delete
	b.wait("x")
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	if err := b.addExec("late", "true"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "init process is not running") {
		t.Errorf("row 14, exec after init's exit: %v", err)
	}
	if err := b.kill("", 9); !errdefs.IsNotFound(err) {
		t.Errorf("row 17, kill after init's exit: %v", err)
	}
	deletes := make(chan error, 4)
	for range 4 {
		go func() { _, err := b.del(""); deletes <- err }()
	}
	var gone int
	for range 4 {
		if err := <-deletes; errdefs.IsNotFound(err) {
			gone++
		} else if err != nil {
			t.Errorf("row 16, delete during delete: %v", err)
		}
	}
	if gone == 4 {
		t.Error("row 16: nobody deleted it")
	}
}

// Row 18: every waiter gets the same answer, one that gives up goes at once.
func TestRow18Waiters(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sh", "-c", "exit 5")
	b.create()
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() { _, err := s.Wait(ctx, &task.WaitRequest{ID: b.id}); gaveUp <- err }()
	cancel()
	if err := <-gaveUp; err == nil {
		t.Error("a cancelled wait was answered")
	}
	answers := make(chan uint32, 10)
	for range 10 {
		go func() { answers <- b.wait("") }()
	}
	b.start("")
	for range 10 {
		if got := <-answers; got != 5 {
			t.Errorf("a waiter was told %d", got)
		}
	}
	if got := b.wait(""); got != 5 {
		t.Errorf("a late waiter was told %d", got)
	}
}

// Row 26: a terminal in the spec and none in the request, and the reverse.
func TestRow26TerminalMismatch(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "true")
	b.request.Terminal = true
	if _, err := s.Create(t.Context(), b.request); !errdefs.IsInvalidArgument(err) {
		t.Errorf("create: %v, want InvalidArgument", err)
	}
}
