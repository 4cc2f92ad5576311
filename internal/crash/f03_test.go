package crash

// F03: two containers with one cgroupsPath, and the shim of one of them is
// killed.

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// sharing makes a stage whose container is in a cgroup with others, with the
// runtime's directory that theirs is in.
func sharing(t *testing.T, root, group string, change func(*specs.Spec)) *stage {
	t.Helper()
	s := newStage(t, built.plain, built.runc, func(c *specs.Spec) {
		c.Linux.CgroupsPath = group
		if change != nil {
			change(c)
		}
	})
	s.cfg.Further = &options.Options{Root: root}
	return s
}

// runningAs starts the container and returns the pid of its init.
func (s *stage) runningAs() int {
	s.t.Helper()
	s.running()
	r, err := s.shim.State(context.Background(), &taskapi.StateRequest{ID: s.id})
	if err != nil {
		s.t.Fatal(err)
	}
	return int(r.Pid)
}

func livesStill(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(after, "Z")
}

func TestF03DeleteSparesWhoSharesTheCgroup(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){"private": nil, "host's": hostPID} {
		t.Run(name+" pid namespace", func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "runc")
			group := "/lark-test/shared-" + strconv.Itoa(os.Getpid()) + "-" + name[:4]
			dying := sharing(t, root, group, change)
			pid := dying.runningAs()
			other := sharing(t, root, group, nil)
			spared := other.runningAs()
			dying.killShim()
			for range 2 {
				if r, err := dying.delete(); err != nil || r.ExitStatus != 137 {
					t.Errorf("delete: %v, %v", r, err)
				}
				if !livesStill(spared) {
					t.Fatal("the other container's init was killed")
				}
			}
			until(t, "the container's own init lives", func() bool { return !livesStill(pid) })
			for _, p := range dying.processes() {
				t.Errorf("left: %s", p)
			}
			if _, err := other.shim.Delete(context.Background(), &taskapi.DeleteRequest{ID: other.id}); err == nil {
				t.Error("the other container can be deleted, so that it does not run")
			}
			other.killShim()
			other.deleteTwice()
			dying.deleteTwice() // the cgroup is its own now
			state, _ := filepath.Glob(filepath.Join(root, namespace, "*"))
			groups, _ := filepath.Glob("/sys/fs/cgroup/*" + group)
			if len(state)+len(groups) > 0 {
				t.Errorf("left: %q, %q", state, groups)
			}
		})
	}
}
