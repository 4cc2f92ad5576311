package task

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
)

// Specs that cannot be meant: rows 23 to 28.

// Row 23: resources that are none are refused; what the runtime refuses is told in its
// words; the container goes on.
func TestRow23Update(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	update := func(resources string) error {
		_, err := s.Update(t.Context(), &task.UpdateTaskRequest{ID: b.id, Resources: anyJSON(resources)})
		return err
	}
	for _, bad := range []string{"", "hello", `{"cpu":7}`, `{"pids":{"limit":"many"}}`, strings.Repeat("[", 20000)} {
		if err := update(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%.20q: %v, want InvalidArgument", bad, err)
		}
	}
	// The kernel takes no quota below a millisecond.
	if err := update(`{"cpu":{"quota":1,"period":1000000}}`); err == nil || !strings.Contains(err.Error(), "OCI runtime update failed") || len(err.Error()) < 40 {
		t.Errorf("a quota that cannot be: %v", err)
	}
	if st := b.state(""); st.Status != apitypes.Status_RUNNING {
		t.Errorf("state %v", st.Status)
	}
	if err := update(`{"pids":{"limit":100}}`); err != nil {
		t.Errorf("a good one afterwards: %v", err)
	}
}

// Row 24: a config.json that is none is refused before the runtime is called.
func TestRow24ConfigJSON(t *testing.T) {
	s := newShim(t)
	for name, content := range map[string]string{
		"empty": "", "not JSON": "hello", "cut short": `{"process":{"args":["sleep"`, "deep": strings.Repeat(`{"linux":`, 20000),
		"twice": `{"linux":{},"linux":{"namespaces":[{"type":"pid"}]}}`, "an array": "[]", "two": "{}{}",
		"too long": "{" + strings.Repeat(" ", 10<<20) + "}",
	} {
		b := s.container(nil, "sleep", "1000")
		if err := os.WriteFile(filepath.Join(b.bundle, "config.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Create(t.Context(), b.request); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
		b.untouched(t)
	}
	b := s.container(nil, "sleep", "1000")
	if err := os.Remove(filepath.Join(b.bundle, "config.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), b.request); !errdefs.IsInvalidArgument(err) {
		t.Errorf("missing: %v, want InvalidArgument", err)
	}
	b.untouched(t)
}

// Row 25: a process spec that is none is refused by Exec; what only the runtime and the
// kernel can judge is told by Start, and leaves the container as it was.
func TestRow25ExecSpecs(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	add := func(id, spec string) error {
		_, err := s.Exec(t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: id, Spec: anyJSON(spec)})
		return err
	}
	for name, spec := range map[string]string{
		"empty": "", "null": " null ", "not JSON": "{", "an array": "[]", "no args": `{"cwd":"/"}`, "args empty": `{"args":[],"cwd":"/"}`,
		"args of numbers": `{"args":[1],"cwd":"/"}`, "NUL in args": `{"args":["a\u0000b"],"cwd":"/"}`, "NUL in env": `{"args":["true"],"env":["A=\u0000"],"cwd":"/"}`,
		"two": `{"args":["true"],"cwd":"/"}{}`, "uid -1": `{"args":["true"],"cwd":"/","user":{"uid":-1}}`, "uid 2^32": `{"args":["true"],"cwd":"/","user":{"uid":4294967296}}`,
	} {
		if err := add("bad", spec); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
	}
	if _, err := s.Exec(t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: "big", Spec: &anypb.Any{Value: make([]byte, maxExecSpec+1)}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("too long: %v, want InvalidArgument", err)
	}
	for name, spec := range map[string]string{
		"relative-cwd": `{"args":["true"],"cwd":"x","env":["PATH=/bin"]}`,
		"two-MB":       `{"args":["true","` + strings.Repeat("a", 2<<20) + `"],"cwd":"/","env":["PATH=/bin"]}`,
		"no-user":      `{"args":["true"],"cwd":"/none/such","env":["PATH=/bin"],"user":{"uid":4294967295}}`,
	} {
		if err := add(name, spec); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, err := s.Start(t.Context(), &task.StartRequest{ID: b.id, ExecID: name})
		if err == nil && b.wait(name) != 0 {
			b.mustDelete(name) // runc 1.1 finds out only when it has handed over
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "OCI runtime exec failed") || len(err.Error()) > 8<<10 {
			t.Errorf("%s: %.200v", name, err)
		}
		b.mustDelete(name)
	}
	b.exec("good", "true")
	if status := b.wait("good"); status != 0 {
		t.Errorf("a good one afterwards: status %d", status)
	}
}

// Row 26, the reverse of a request for a terminal that the spec does not have.
func TestRow26TerminalInTheSpecOnly(t *testing.T) {
	s := newShim(t)
	b := s.container(func(c *specs.Spec) { c.Process.Terminal = true }, "true")
	if _, err := s.Create(t.Context(), b.request); !errdefs.IsInvalidArgument(err) {
		t.Errorf("create: %v, want InvalidArgument", err)
	}
	b.untouched(t)
}

// Row 28: what a client or an image has written comes into the log only in quotes, and
// into an error without a control character; a log line that looks like another's
// cannot be made.
func TestRow28ControlCharacters(t *testing.T) {
	s := newShim(t)
	const evil = "\x1b]0;x\x07\r\nlevel=ERROR msg=forged\n\x00"
	b := s.container(func(c *specs.Spec) {
		c.Annotations = map[string]string{evil: evil, "io.kubernetes.cri.sandbox-id": evil}
		c.Process.Args = []string{evil[:len(evil)-1]}
	}, "true")
	_, created := s.Create(t.Context(), b.request)
	_, refused := s.Create(t.Context(), &task.CreateTaskRequest{ID: evil, Bundle: b.bundle})
	good := s.container(nil, "sleep", "1000")
	good.create()
	good.start("")
	errs := map[string]error{"create": created, "container id": refused, "exec id": good.addExec(evil, "true")}
	good.request.Stdout = "unknown://" + evil
	other := s.container(nil, "true")
	other.request.Stdout = good.request.Stdout
	_, errs["stdio"] = s.Create(t.Context(), other.request)
	if err := good.addExec("x", evil[:len(evil)-1]); err != nil {
		t.Fatal(err)
	}
	_, errs["exec"] = s.Start(t.Context(), &task.StartRequest{ID: good.id, ExecID: "x"})
	for what, err := range errs {
		if err == nil {
			t.Errorf("%s: no error", what)
		} else if at := strings.IndexFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }); at >= 0 {
			t.Errorf("%s: a control character in %q", what, err)
		}
	}
	log := s.log.String()
	if at := strings.IndexFunc(strings.ReplaceAll(log, "\n", ""), func(r rune) bool { return r < ' ' || r == 0x7f }); at >= 0 {
		t.Errorf("a control character in the log:\n%q", log)
	}
	for line := range bytes.Lines([]byte(log)) {
		if bytes.HasPrefix(line, []byte("level=ERROR msg=forged")) {
			t.Errorf("a forged line in the log:\n%s", log)
		}
	}
}
