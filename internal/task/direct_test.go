package task

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestKillNeedsNoRuntime: SIGKILL of an init that has a pid namespace of its own
// goes through the pidfd, and ends a paused container too. Where the runtime is not
// known, the signal is another or the namespace is shared, the runtime is asked.
func TestKillNeedsNoRuntime(t *testing.T) {
	for name, c := range map[string]struct {
		runtime string
		change  func(*specs.Spec)
		signal  uint32
		pause   bool
		asked   bool
	}{
		"runc":            {runtime: "runc", signal: 9},
		"paused":          {runtime: "runc", signal: 9, pause: true},
		"another signal":  {runtime: "runc", signal: 15, asked: true},
		"another runtime": {runtime: "runc-with-more", signal: 9, asked: true},
		"host's pids":     {runtime: "runc", change: hostPID, signal: 9, asked: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			dir := t.TempDir()
			calls := filepath.Join(dir, "calls")
			text := "#!/bin/sh\necho \" $* \" >>" + calls + "\nexec runc \"$@\"\n"
			binary := filepath.Join(dir, c.runtime)
			if err := os.WriteFile(binary, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
			b := s.container(c.change, "sh", "-c", "trap 'exit 15' TERM; sleep 1000 & wait")
			b.use(binary, filepath.Join(dir, "root"))
			b.create()
			b.start("")
			if c.pause {
				if _, err := b.Pause(t.Context(), &task.PauseRequest{ID: b.id}); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.kill("", c.signal); err != nil {
				t.Error(err)
			}
			if c.signal == 9 {
				if status := b.wait(""); status != 137 {
					t.Errorf("status %d", status)
				}
			}
			made, err := os.ReadFile(calls)
			if err != nil {
				t.Fatal(err)
			}
			if asked := strings.Contains(string(made), " kill "); asked != c.asked {
				t.Errorf("asked: %v, of\n%s", asked, made)
			}
			if c.signal != 9 {
				_ = b.kill("", 9)
				b.wait("")
			}
			b.mustDelete("")
		})
	}
}
