package task

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// F21: a process in a group that the container has frozen itself, below its own,
// dies of the container's SIGKILL, and so init's exit is seen.
func TestF21KillReachesANestedFrozenGroup(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sh", "-c", "sleep 1000 & sleep 1000 & wait")
	init := b.create()
	group, err := shared.cgroups.Of(int(init))
	if err != nil {
		t.Fatal(err)
	}
	freezer, state, frozen := group.Dir("freezer"), "freezer.state", "FROZEN"
	if group.Unified() {
		state, frozen = "cgroup.freeze", "1"
	}
	nested := filepath.Join(freezer, "a", "b")
	if err := os.MkdirAll(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	b.start("")
	var pids []string
	for deadline := time.Now().Add(patience); len(pids) < 2; {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", init, init))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%v, %q", err, text)
		}
		pids = strings.Fields(string(text))
	}
	if err := os.WriteFile(filepath.Join(nested, "cgroup.procs"), []byte(pids[0]), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(freezer, "a", state), []byte(frozen), 0); err != nil {
		t.Fatal(err)
	}
	if err := b.kill("", 9); err != nil {
		t.Error(err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("")
}
