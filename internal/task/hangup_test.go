package task

import (
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
)

// F06: the output of a terminal ends with its process, before any Delete: clients
// read it to its end first.
func TestF06TerminalEndsWithItsProcess(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	stdout, out := s.output("tty")
	data := `{"args":["sh","-c","echo FIRST; exec </dev/null >/dev/null 2>&1; exit 5"],"cwd":"/","terminal":true,"env":["PATH=/bin"]}`
	_, err := b.Exec(t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: "tty", Terminal: true, Stdout: stdout, Spec: anyJSON(data)})
	if err != nil {
		t.Fatal(err)
	}
	b.start("tty")
	if status := b.wait("tty"); status != 5 {
		t.Errorf("status %d", status)
	}
	if got := out(); got != "FIRST\r\n" {
		t.Errorf("%q", got)
	}
	b.mustDelete("tty")
}
