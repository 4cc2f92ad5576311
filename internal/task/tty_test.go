package task

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
)

// The end of a terminal's input hangs it up, so it must not come with the exit of its
// process.
//
// All that a process wrote to its terminal is there when Delete has answered (row
// 45, containerd's TestContainerExecLargeOutputWithTTY).
func TestRow45LargeOutputThroughATerminal(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	for i := range 12 {
		id := fmt.Sprintf("tty-%d", i)
		stdout, out := s.output(id)
		stdin := filepath.Join(s.dir, id+"-in")
		if err := mkfifo(stdin); err != nil {
			t.Fatal(err)
		}
		data := `{"args":["sh","-c","seq -s ' ' 1000000"],"cwd":"/","terminal":true,"env":["PATH=/bin:/usr/bin"]}`
		if _, err := b.Exec(t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: id, Terminal: true, Stdin: stdin, Stdout: stdout, Spec: anyJSON(data)}); err != nil {
			t.Fatal(err)
		}
		b.start(id)
		done := make(chan string, 1)
		go func() { done <- out() }()
		if status := b.wait(id); status != 0 {
			t.Errorf("status %d", status)
		}
		b.mustDelete(id)
		got := strings.TrimSpace(<-done)
		if !strings.HasSuffix(got, "999999 1000000") {
			t.Errorf("round %d: the output of %d bytes ends with %q", i, len(got), got[max(0, len(got)-30):])
		}
	}
}
