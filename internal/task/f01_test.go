package task

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

// binary is the path of the box's runtime.
func (b *box) binary() string {
	b.t.Helper()
	o := &options.Options{}
	if err := proto.Unmarshal(b.request.Options.Value, o); err != nil {
		b.t.Fatal(err)
	}
	return o.BinaryName
}

// away renames something away, and returns what brings it back.
func away(t *testing.T, path string) (back func()) {
	t.Helper()
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
}

// refusedWithName says that a call was refused for the sake of what is named.
func refusedWithName(t *testing.T, call string, err error, name string) {
	t.Helper()
	if !errdefs.IsFailedPrecondition(err) || errdefs.IsNotFound(err) || !strings.Contains(err.Error(), name) {
		t.Errorf("%s: %v, want FailedPrecondition and %s", call, err, name)
	}
}

// The runtime's binary is not there for a while: nothing that lives is
// NotFound, Kill works, and Delete is refused until the runtime is back.
func TestF01RuntimeGone(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	pid := b.start("")
	if err := b.addExec("x", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	other := b.beside(ctl, "sleep", "1000")
	back := away(t, b.binary())
	ctx := t.Context()
	for name, err := range map[string]error{
		"create":     second(s.Create(ctx, other.request)),
		"exec start": second(s.Start(ctx, &task.StartRequest{ID: b.id, ExecID: "x"})),
		"pause":      second(s.Pause(ctx, &task.PauseRequest{ID: b.id})),
		"update":     second(s.Update(ctx, &task.UpdateTaskRequest{ID: b.id, Resources: &anypb.Any{Value: []byte("{}")}})),
		"checkpoint": second(s.Checkpoint(ctx, &task.CheckpointTaskRequest{ID: b.id, Path: filepath.Join(s.dir, "image")})),
	} {
		refusedWithName(t, name, err, b.binary())
	}
	if err := b.kill("", 9); err != nil {
		t.Errorf("kill: %v", err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	for range 2 {
		_, err := b.del("")
		refusedWithName(t, "delete", err, b.binary())
	}
	if st := b.state(""); st.Pid != pid || st.ExitStatus != 137 {
		t.Errorf("after the refused delete: %v", st)
	}
	if _, err := os.Stat(filepath.Join(ctl.Root(), "lark-test", b.id)); err != nil {
		t.Errorf("after the refused delete: %v", err)
	}
	for _, k := range b.kinds(b.id) {
		if k == order.Deleted {
			t.Error("a delete that was refused was published")
		}
	}
	back()
	if d := b.mustDelete(""); d.ExitStatus != 137 {
		t.Errorf("deleted: %v", d)
	}
	if _, err := os.Stat(filepath.Join(ctl.Root(), "lark-test", b.id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the delete: %v", err)
	}
}

// A runtime that has lost the state of a living container says that there is
// none. Kill does not repeat that.
func TestF01RuntimeForgets(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	b.start("")
	if err := os.RemoveAll(filepath.Join(ctl.Root(), "lark-test", b.id)); err != nil {
		t.Fatal(err)
	}
	if err := b.kill("", 9); err != nil {
		t.Errorf("kill: %v", err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("")
}

// Without the directory of all states the runtime proves nothing: it is not
// asked.
func TestF01StateDirectoryGone(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	b.start("")
	root := filepath.Join(ctl.Root(), "lark-test")
	back := away(t, root)
	_, err := b.Pause(t.Context(), &task.PauseRequest{ID: b.id})
	refusedWithName(t, "pause", err, root)
	if err := b.kill("", 9); err != nil {
		t.Errorf("kill: %v", err)
	}
	b.wait("")
	_, err = b.del("")
	refusedWithName(t, "delete", err, root)
	if _, err := os.Lstat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("somebody has made %s: %v", root, err)
	}
	back()
	b.mustDelete("")
}
