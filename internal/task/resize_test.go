package task

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// F09: the size that an exec's terminal is given before its start is there when the
// exec looks first; the one of a running exec comes as before.
func TestF09ResizeBeforeStart(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	stdout, out := s.output("tty")
	data := `{"args":["stty","size"],"cwd":"/","terminal":true,"env":["PATH=/bin"],"ConsoleSize":{"width":1,"height":1}}`
	_, err := b.Exec(t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: "tty", Terminal: true, Stdout: stdout, Spec: anyJSON(data)})
	if err != nil {
		t.Fatal(err)
	}
	for _, width := range []uint32{20, 123} {
		if _, err := b.ResizePty(t.Context(), &task.ResizePtyRequest{ID: b.id, ExecID: "tty", Width: width, Height: 45}); err != nil {
			t.Fatal(err)
		}
	}
	b.start("tty")
	if status := b.wait("tty"); status != 0 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("tty")
	if got := out(); !strings.Contains(got, "45 123\r\n") {
		t.Errorf("%q", got)
	}
}

// F09: a spec is changed in nothing but the size.
func TestF09SpecWithASize(t *testing.T) {
	for _, c := range []struct {
		spec string
		size *specs.Box
		want string
	}{
		{`{"a":1e400}`, nil, `{"a":1e400}`},
		{`{"a":1e400}`, &specs.Box{Width: 1}, `{"a":1e400}`},
		{`{"a":1e400}`, &specs.Box{Width: 2, Height: 1}, `{"a":1e400,"consoleSize":{"height":1,"width":2}}`},
		{`{"a":[{"b":"c"}],"consolesize":{}}`, &specs.Box{Width: 2, Height: 1}, `{"a":[{"b":"c"}],"consoleSize":{"height":1,"width":2}}`},
		{`[]`, &specs.Box{Width: 2, Height: 1}, `[]`},
	} {
		if got := string(sized([]byte(c.spec), c.size)); got != c.want {
			t.Errorf("%s: %s, want %s", c.spec, got, c.want)
		}
	}
}
