package task

// F13: what the rules have accepted comes to an end, whatever becomes of the code
// that was to report it.

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/cgroup"
	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/stdio"
	"github.com/larkshim/lark/lifecycle"
)

// outcomeKinds are the events that only an obligation may report.
var outcomeKinds = []string{
	"Created", "CreateFailed", "Started", "StartFailed", "Paused", "PauseFailed", "Resumed", "ResumeFailed",
	"Deleted", "DeleteFailed", "KillAllDone", "KillAllFailed", "Looked", "Exited",
}

// TestF13OnlyObligationsReport: no other file names an outcome or steps the
// machine, so that none can be reported twice or by code that does not have its
// obligation.
func TestF13OnlyObligationsReport(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no source: %v", err)
	}
	named := map[string]int{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		steps := 0
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, _ := sel.X.(*ast.Ident)
			switch {
			case sel.Sel.Name == "Step" && (x == nil || x.Name != "failpoint"):
				steps++
			case x != nil && x.Name == "lifecycle" && slices.Contains(outcomeKinds, sel.Sel.Name):
				named[sel.Sel.Name]++
				if path != "obligation.go" {
					t.Errorf("%s names the outcome %s", path, sel.Sel.Name)
				}
			}
			return true
		})
		// Those of shim.go are the shim's rules, which no obligation is about.
		if want := map[string]int{"container.go": 1, "shim.go": 1}[path]; steps != want {
			t.Errorf("%s steps the machine in %d places, not %d", path, steps, want)
		}
	}
	if len(named) != len(outcomeKinds) {
		t.Errorf("the obligations know %v, not all of %v", named, outcomeKinds)
	}
}

// TestF13ResolvedOnce: the second outcome of an obligation is not reported, in
// whatever way it comes.
func TestF13ResolvedOnce(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	b.start("")
	c, err := s.find(b.id)
	if err != nil {
		t.Fatal(err)
	}
	o, err := c.ask(c.init, lifecycle.Event{Kind: lifecycle.PauseAsked})
	if err != nil {
		t.Fatal(err)
	}
	prepared := 0
	for range 2 {
		o.resolve(func(*lifecycle.Event) { prepared++ })
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(s.log.String(), "reported twice"); n != 1 || prepared != 1 {
		t.Errorf("a second outcome was logged %d times and prepared %d times", n, prepared-1)
	}
	if c.machine.State() != lifecycle.Frozen {
		t.Errorf("state %v", c.machine.State())
	}
	o, err = c.ask(c.init, lifecycle.Event{Kind: lifecycle.ResumeAsked})
	if err != nil {
		t.Fatal(err)
	}
	var undone []string
	o.onFailure(func(context.Context) error { undone = append(undone, "first"); return errors.New("kept") })
	o.onFailure(func(context.Context) error { undone = append(undone, "second"); panic("again") })
	if err := o.Close(); err == nil || err.Error() != "kept" {
		t.Errorf("close: %v", err)
	}
	if err := o.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
	o.resolve(nil)
	if got := strings.Join(undone, " "); c.machine.State() != lifecycle.Frozen || got != "second second second first" {
		t.Errorf("state %v, undone: %s", c.machine.State(), got)
	}
}

// panicking has one part of the rooms panic, as often as fuse says.
type panicking struct {
	rooms
	streams, group bool
	killings       int
}

func (p *panicking) newStreams(ctx context.Context, log *slog.Logger, s stdio.Spec) (streams, error) {
	if p.streams {
		panic("in newStreams")
	}
	return p.rooms.newStreams(ctx, log, s)
}

func (p *panicking) locate(pid int, path, id string, systemd bool) (cgroup.Group, error) {
	if p.group {
		panic("in locate")
	}
	return p.rooms.locate(pid, path, id, systemd)
}

func (p *panicking) killAll(ctx context.Context, dir string) error {
	switch p.killings--; {
	case p.killings >= 0 && p.killings%2 == 0:
		panic("in killAll")
	case p.killings >= 0:
		return errors.New("not yet")
	}
	return p.rooms.killAll(ctx, dir)
}

// caught makes a call as the server does, which answers a panic with Internal.
func caught[T any](call func() (T, error)) (answer T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v: %w", p, errdefs.ErrInternal)
		}
	}()
	return call()
}

// TestF13PanicInStart: an exec whose Start panicked has failed: it holds nothing
// back, is deleted as any other, and its waiters are answered.
func TestF13PanicInStart(t *testing.T) {
	s := newShim(t)
	rooms := &panicking{rooms: s.rooms}
	s.rooms = rooms
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	b.start("")
	if err := b.addExec("e", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	wait := b.beginWait("e")
	rooms.streams = true
	_, err := caught(func() (*task.StartResponse, error) {
		return b.Start(t.Context(), &task.StartRequest{ID: b.id, ExecID: "e"})
	})
	rooms.streams = false
	if !errdefs.IsInternal(err) {
		t.Errorf("start: %v", err)
	}
	if r := ended(t, "wait", wait); !errdefs.IsFailedPrecondition(r.err) {
		t.Errorf("wait: %v, %v", r.answer, r.err)
	}
	if err := b.kill("", 9); err != nil {
		t.Errorf("kill: %v", err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("e")
	b.mustDelete("")
	gone(t, ctl)
}

// TestF13PanicInCreate: a Create that panicked after the runtime's call leaves
// nothing, and its id can be used again.
func TestF13PanicInCreate(t *testing.T) {
	s := newShim(t)
	rooms := &panicking{rooms: s.rooms, group: true}
	s.rooms = rooms
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	_, err := caught(func() (*task.CreateTaskResponse, error) { return b.Create(t.Context(), b.request) })
	rooms.group = false
	if !errdefs.IsInternal(err) {
		t.Errorf("create: %v", err)
	}
	b.leavesNothing(ctl)
	b.create()
	if err := b.kill("", 9); err != nil {
		t.Errorf("kill: %v", err)
	}
	b.wait("")
	b.mustDelete("")
}

// TestF13KillAllFails: as long as the killing of what a dead init has left fails or
// panics it is repeated, and init's exit is held. Then it is told.
func TestF13KillAllFails(t *testing.T) {
	s := newShim(t)
	rooms := &panicking{rooms: s.rooms, killings: 4}
	s.rooms = rooms
	b, ctl := s.scripted(hostPID, fake.Profile{}, "sh", "-c", "sleep 1000 & exec sleep 1000")
	b.create()
	pid := b.start("")
	if err := unix.Kill(int(pid), sigkill); err != nil {
		t.Fatal(err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	if rooms.killings != -1 {
		t.Errorf("the exit was told after %d attempts to kill of which four fail", 4-rooms.killings)
	}
	gone(t, ctl)
	b.mustDelete("")
	b.is(order.Deleted, "")
}
