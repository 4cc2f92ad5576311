package field

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/e2e/daemon"
)

// F03: two containers share a cgroup; the shim of one is killed. Then
// containerd clears that container away, and the other lives.
func TestF03OneCgroupForTwo(t *testing.T) {
	under(t, func(s *stage) {
		share := func(spec *specs.Spec) { spec.Linux.CgroupsPath = "/" + s.d.Tag() + "/" + s.id("both") }
		o := daemon.SpecOpts{Args: []string{"sleep", "100000"}, Mutate: share}
		first := s.run("a", o, daemon.Stdio{})
		second := s.run("b", o, daemon.Stdio{})
		shim, ok := s.d.Shim(s.id("a"))
		if !ok {
			s.Fatalf("no shim of the first: %v", s.d.Processes())
		}
		s.d.KillOne(shim.Pid)
		s.until("the first is dead", func() bool { return !alive(first) })
		s.until("containerd has cleared it away", func() bool {
			_, err := s.Status(s.ctx, s.id("a"), "")
			bundles, _ := filepath.Glob(s.d.State() + "/io.containerd.runtime.v2.task/*/" + s.id("a"))
			return errdefs.IsNotFound(err) && len(bundles) == 0
		})
		if !alive(second) {
			s.Error("the second was killed with the first")
		}
		s.must(s.DeleteContainer(s.ctx, s.id("a")))
		s.end("b")
	})
}

// F21: a SIGKILL also reaches what runs in a frozen cgroup below the container's.
func TestF21FrozenGroupBelow(t *testing.T) {
	under(t, func(s *stage) {
		s.sleeper("a")
		s.must(s.Exec(s.ctx, s.id("a"), "x", daemon.Process("sleep", "100000"), daemon.Stdio{}))
		pid, err := s.Start(s.ctx, s.id("a"), "x")
		s.must(err)
		// Not before: a runtime's own threads that are frozen on their way leave the
		// group half frozen.
		s.until("the exec is the runtime's no more", func() bool {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			s.must(err)
			return strings.HasPrefix(string(b), "sleep\x00")
		})
		s.freezeBelow("a", int(pid))
		s.must(s.Kill(s.ctx, s.id("a"), "", uint32(unix.SIGKILL), true))
		s.wait("a", "x", 137)
		s.wait("a", "", 137)
		if alive(int(pid)) {
			s.Error("the frozen process lives")
		}
		_, err = s.Delete(s.ctx, s.id("a"), "x")
		s.must(err)
		s.remove("a")
	})
}

// freezeBelow moves a process into a cgroup below its container's, and freezes it.
func (s *stage) freezeBelow(name string, pid int) {
	s.Helper()
	group, file, frozen, thawed := "/sys/fs/cgroup/freezer", "freezer.state", "FROZEN", "THAWED"
	if _, err := os.Stat(group); err != nil {
		group, file, frozen, thawed = "/sys/fs/cgroup", "cgroup.freeze", "1", "0"
	}
	group = filepath.Join(group, s.d.Tag(), s.id(name), "below")
	s.must(os.Mkdir(group, 0o755))
	s.must(os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Append(nil, pid), 0))
	// Before the daemon is stopped, which cannot kill what is frozen. The group is
	// gone where the test succeeds.
	s.Cleanup(func() { _ = os.WriteFile(filepath.Join(group, file), []byte(thawed), 0) })
	s.must(os.WriteFile(filepath.Join(group, file), []byte(frozen), 0))
	s.until("it is frozen", func() bool {
		b, err := os.ReadFile(filepath.Join(group, file))
		s.must(err)
		return strings.TrimSpace(string(b)) == frozen
	})
}

// F28: a cgroup may be named as the kernel names one that was removed.
func TestF28CgroupNamedDeleted(t *testing.T) {
	under(t, func(s *stage) {
		pids := map[string]uint32{}
		for name, group := range map[string]string{"a": "x", "b": "x (deleted)"} {
			o := daemon.SpecOpts{Args: []string{"sleep", "100000"}, Mutate: func(spec *specs.Spec) {
				spec.Linux.CgroupsPath = "/" + s.d.Tag() + "/" + group
			}}
			pids[name] = uint32(s.run(name, o, daemon.Stdio{}))
		}
		for name, pid := range pids {
			got, err := s.Tasks.ListPids(s.In(s.ctx), &tasksapi.ListPidsRequest{ContainerID: s.id(name)})
			s.must(err)
			if len(got.Processes) != 1 || got.Processes[0].Pid != pid {
				s.Errorf("%s: %v, want %d alone", name, got.Processes, pid)
			}
		}
		s.end("b")
		if !alive(int(pids["a"])) {
			s.Error("one was killed with the other")
		}
		s.end("a")
	})
}
