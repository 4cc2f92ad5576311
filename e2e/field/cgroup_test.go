package field

import (
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

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
