package crash

// F01: the runtime's file is not there when `delete` runs, and there again for
// the next.

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/larkshim/lark/internal/vanish"
)

func TestF01DeleteWithoutTheRuntime(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){"private": nil, "host's": hostPID} {
		t.Run(name+" pid namespace", func(t *testing.T) {
			runtime := filepath.Join(t.TempDir(), "runc")
			data, err := os.ReadFile(built.runc)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(runtime, data, 0o755); err != nil {
				t.Fatal(err)
			}
			s := newStage(t, built.plain, runtime, change)
			pid := s.runningAs()
			s.killShim()
			back := vanish.Path("the runtime", runtime).Away(t)
			if r, err := s.delete(); err != nil || r.ExitStatus != 137 {
				t.Errorf("delete: %v, %v", r, err)
			}
			until(t, "init lives", func() bool { return !livesStill(pid) })
			for _, left := range s.left() {
				if !strings.HasPrefix(left, s.home.RuntimeRoot()) { // which is the runtime's to remove
					t.Errorf("left: %s", left)
				}
			}
			back()
			s.deleteTwice()
		})
	}
}
