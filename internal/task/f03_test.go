package task

import (
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/runtime-spec/specs-go"

	fake "github.com/larkshim/lark/internal/fakeruntime"
)

// sameGroup puts a container into the cgroup of another.
func sameGroup(id string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Linux.CgroupsPath = "/lark-test/" + id }
}

// F03: a container of which init has died, or that is killed with all its
// processes, is in the cgroup of another one: that lives on.
func TestF03KillAllSparesWhoSharesTheCgroup(t *testing.T) {
	for name, c := range map[string]struct {
		ofOneShim bool
		all       bool
	}{"init dies, of two shims": {false, false}, "all are killed, of two shims": {false, true}, "all are killed, of one shim": {true, true}} {
		t.Run(name, func(t *testing.T) {
			s, beside := newShim(t), newShim(t)
			if c.ofOneShim {
				beside = s
			}
			b, ctl := s.scripted(hostPID, fake.Profile{}, "sh", "-c", "sleep 1000 & sleep 1000 & wait")
			other := beside.container(sameGroup(b.id), "sleep", "1000")
			other.use(b.binary(), ctl.Root())
			other.create()
			spared := int(other.start(""))
			b.create()
			b.start("")
			until(t, "the container does not get its processes", func() bool {
				p, err := b.Pids(t.Context(), &task.PidsRequest{ID: b.id})
				return err == nil && len(p.Processes) == 4 // and the other's
			})
			if _, err := b.Kill(t.Context(), &task.KillRequest{ID: b.id, Signal: 9, All: c.all}); err != nil {
				t.Fatal(err)
			}
			b.wait("")
			p, err := b.Pids(t.Context(), &task.PidsRequest{ID: b.id})
			if err != nil || len(p.Processes) != 1 {
				t.Errorf("after the exit: %v, %v", p, err)
			}
			if !livesStill(spared) || other.state("").Status != apitypes.Status_RUNNING {
				t.Error("the other container was killed")
			}
			group, err := other.service(t).cgroup().Pids()
			if err != nil || len(group) != 1 || group[0] != spared {
				t.Errorf("in the cgroup are %v, %v; only %d is to be", group, err, spared)
			}
			b.mustDelete("")
			if !livesStill(spared) {
				t.Error("the other container was killed by the delete")
			}
		})
	}
}

// service is the container as its shim has it.
func (b *box) service(t *testing.T) *container {
	t.Helper()
	c, err := b.find(b.id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
