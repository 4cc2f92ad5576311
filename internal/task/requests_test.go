package task

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/order"
)

// Requests that cannot be meant: rows 1 to 11.

// packed wraps a message as containerd does: its type without a host.
func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	value, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: value}
}

// untouched fails if a refused Create has left anything.
func (b *box) untouched(t *testing.T) {
	t.Helper()
	if _, err := b.State(t.Context(), &task.StateRequest{ID: b.id}); !errdefs.IsNotFound(err) {
		t.Errorf("state: %v, want NotFound", err)
	}
	if kinds := b.kinds(b.id); len(kinds) != 0 {
		t.Errorf("events %v", kinds)
	}
	for _, name := range []string{"options.json", "runtime", "init.pid", "log.json"} {
		if _, err := os.Lstat(filepath.Join(b.bundle, name)); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

// Row 1: every form of an id that is none, of a container and of an exec.
func TestRow01IDs(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	for name, id := range map[string]string{
		"too long": strings.Repeat("a", 77), "slash": "a/b", "backslash": `a\b`, "NUL": "a\x00b", "newline": "a\n",
		"space": "a b", "leading dot": ".a", "leading dash": "-a", "dots": "..", "climbing": "../../x",
		"look-alike": "\u0430bc", "not UTF-8": "a\xff",
	} {
		if _, err := s.Create(t.Context(), &task.CreateTaskRequest{ID: id, Bundle: b.bundle}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("create, %s: %v", name, err)
		}
		if err := b.addExec(id, "true"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("exec, %s: %v", name, err)
		}
	}
	if err := b.addExec("", "true"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("exec without an id: %v", err)
	}
}

// Row 2: an exec may be called like init or like a file of the bundle, and is neither.
// It may not be called like the container: its exit would be told in the very words in
// which containerd is told of init's.
func TestRow02ExecsWithOthersNames(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	pid := b.create()
	b.start("")
	before, err := os.ReadFile(filepath.Join(b.bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.addExec(b.id, "true"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an exec with the container's id: %v, want InvalidArgument", err)
	}
	for _, id := range []string{"init", "config", "config.json", "init.pid", "exec-init", "log.json", "options.json", "exit.json", "rootfs"} {
		if got := b.exec(id, "sh", "-c", "exit 3"); got == pid {
			t.Errorf("exec %q has init's pid", id)
		}
		if status := b.wait(id); status != 3 {
			t.Errorf("exec %q: status %d", id, status)
		}
		b.mustDelete(id)
		b.is(order.Exited, id)
	}
	if st := b.state(""); st.Status != apitypes.Status_RUNNING || st.Pid != pid {
		t.Errorf("init: %v", st)
	}
	if after, err := os.ReadFile(filepath.Join(b.bundle, "config.json")); err != nil || string(after) != string(before) {
		t.Errorf("config.json was changed (%v)", err)
	}
	if data, err := os.ReadFile(filepath.Join(b.bundle, "init.pid")); err != nil || len(data) == 0 {
		t.Errorf("init.pid: %q, %v", data, err)
	}
}

// Row 5: an id of another shim's container means nothing here.
func TestRow05AnotherShimsContainer(t *testing.T) {
	s, other := newShim(t), newShim(t)
	b := other.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	ctx := t.Context()
	for name, err := range map[string]error{
		"State":  second(s.State(ctx, &task.StateRequest{ID: b.id})),
		"Kill":   second(s.Kill(ctx, &task.KillRequest{ID: b.id, Signal: 9})),
		"Delete": second(s.Delete(ctx, &task.DeleteRequest{ID: b.id})),
		"Exec":   second(s.Exec(ctx, &task.ExecProcessRequest{ID: b.id, ExecID: "x", Spec: anyJSON(`{"args":["true"],"cwd":"/"}`)})),
		"Pids":   second(s.Pids(ctx, &task.PidsRequest{ID: b.id})),
	} {
		if !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v, want NotFound", name, err)
		}
	}
	if st := b.state(""); st.Status != apitypes.Status_RUNNING {
		t.Errorf("the other shim's container is %v", st.Status)
	}
}

// Row 6: a bundle that is none is refused before anything is written.
func TestRow06Bundles(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	link, file := filepath.Join(s.dir, "link"), filepath.Join(s.dir, "file")
	if err := errors.Join(os.Symlink(b.bundle, link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	foreign := s.container(nil, "true")
	if err := os.Chown(foreign.bundle, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"empty": "", "relative": "bundle", "unclean": b.bundle + "/../" + b.id, "file": file, "link": link,
		"below a link": filepath.Join(link, "rootfs", ".."), "a stranger's": foreign.bundle,
	} {
		if _, err := s.Create(t.Context(), &task.CreateTaskRequest{ID: b.id, Bundle: path}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
		b.untouched(t)
	}
	if _, err := s.Create(t.Context(), &task.CreateTaskRequest{ID: b.id, Bundle: filepath.Join(s.dir, "none")}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("missing: %v, want FailedPrecondition", err)
	}
}

// Row 7: options of a type that is not known, cut short, or of the wrong message.
func TestRow07Options(t *testing.T) {
	s := newShim(t)
	cut := packed(t, &options.Options{BinaryName: "a long enough name"})
	cut.Value = cut.Value[:5]
	wrong := packed(t, &options.CheckpointOptions{Exit: true, ImagePath: "/i"})
	for name, o := range map[string]*anypb.Any{
		"unknown": {TypeUrl: "x.Y", Value: []byte{1}}, "cut": cut, "wrong message": wrong, "no type": {Value: []byte{8, 1}},
	} {
		b := s.container(nil, "sleep", "1000")
		b.request.Options = o
		if _, err := s.Create(t.Context(), b.request); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
		b.untouched(t)
	}
	b := s.container(nil, "sleep", "1000")
	b.create()
	if _, err := s.Checkpoint(t.Context(), &task.CheckpointTaskRequest{ID: b.id, Options: packed(t, &options.Options{})}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("checkpoint with runtime options: %v", err)
	}
}

// Row 9: a number that is no signal is refused and signals nobody; the highest one
// that is, is sent.
func TestRow09Signals(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	b.exec("x", "sleep", "1000")
	for _, exec := range []string{"", "x"} {
		for _, n := range []uint32{0, 65, 128, 1 << 31, 1<<32 - 1, 1<<32 - 9} {
			if err := b.kill(exec, n); !errdefs.IsInvalidArgument(err) {
				t.Errorf("signal %d to %q: %v, want InvalidArgument", n, exec, err)
			}
		}
		if st := b.state(exec); st.Status != apitypes.Status_RUNNING {
			t.Errorf("process %q is %v", exec, st.Status)
		}
	}
	if err := b.kill("x", maxSignal); err != nil {
		t.Fatal(err)
	}
	if status := b.wait("x"); status != 128+maxSignal {
		t.Errorf("status %d", status)
	}
}

// Row 10: no size, and no state of a process, makes ResizePty block or fail other
// than by NotFound.
func TestRow10ResizePty(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resize := func(when, exec string) {
		t.Helper()
		for _, side := range [][2]uint32{{0, 0}, {1, 65535}, {65535, 65535}, {1 << 16, 1 << 31}, {1<<32 - 1, 0}} {
			begun := time.Now()
			if _, err := s.ResizePty(ctx, &task.ResizePtyRequest{ID: b.id, ExecID: exec, Width: side[0], Height: side[1]}); err != nil {
				t.Errorf("%s, %v: %v", when, side, err)
			}
			if took := time.Since(begun); took > patience/2 {
				t.Errorf("%s, %v: took %v", when, side, took)
			}
		}
	}
	b.create()
	resize("created, no terminal", "")
	b.start("")
	resize("running, no terminal", "")
	data := `{"args":["sleep","1000"],"cwd":"/","terminal":true,"env":["PATH=/bin"]}`
	if _, err := s.Exec(ctx, &task.ExecProcessRequest{ID: b.id, ExecID: "tty", Terminal: true, Spec: anyJSON(data)}); err != nil {
		t.Fatal(err)
	}
	resize("terminal, not started", "tty")
	b.start("tty")
	resize("terminal, running", "tty")
	if err := b.kill("tty", 9); err != nil {
		t.Fatal(err)
	}
	b.wait("tty")
	resize("terminal, exited", "tty")
	b.mustDelete("tty")
	if _, err := s.ResizePty(ctx, &task.ResizePtyRequest{ID: b.id, ExecID: "tty"}); !errdefs.IsNotFound(err) {
		t.Errorf("deleted: %v, want NotFound", err)
	}
}

// Row 11: an owner of the stdio that chown(2) would take for "leave it" is refused, and
// so are numbers that do not fit (CVE-2024-40635: an overflow made root of them).
func TestRow11Owners(t *testing.T) {
	s := newShim(t)
	for name, o := range map[string]proto.Message{
		"uid -1": &options.Options{IoUid: 1<<32 - 1}, "gid -1": &options.Options{IoGid: 1<<32 - 1},
	} {
		b := s.container(nil, "sleep", "1000")
		stdout, _ := s.output(strings.ReplaceAll(name, " ", ""))
		b.request.Options, b.request.Stdout = packed(t, o), stdout
		if _, err := s.Create(t.Context(), b.request); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
		if _, err := b.State(t.Context(), &task.StateRequest{ID: b.id}); !errdefs.IsNotFound(err) {
			t.Errorf("%s: state: %v, want NotFound", name, err)
		}
	}
}
