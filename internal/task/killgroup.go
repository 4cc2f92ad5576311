package task

import (
	"context"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/oci"
	"github.com/larkshim/lark/lifecycle"
)

// killGroup kills every process in the container's cgroup; of a cgroup that
// another container uses too, those that are this one's.
func (c *container) killGroup(ctx context.Context) error {
	group := c.cgroup()
	dir := group.KillDir()
	if dir == "" {
		err := c.runtime.Kill(ctx, c.id, sigkill, true)
		if oci.Refused(err) && errdefs.IsFailedPrecondition(err) {
			return nil // init is dead, and the runtime kills nothing after that
		}
		return err
	}
	own := sharing{id: c.id, runtime: c.runtime, group: group, others: c.service.processesBeside(c)}
	if v, _ := c.view(initProc); v.Status != lifecycle.StatusStopped {
		own.init = c.init.child
	}
	if shared, err := c.service.rooms.killShared(ctx, own); shared || err != nil {
		return err
	}
	return c.service.rooms.killAll(ctx, dir)
}

// processesBeside are the pids of the living processes of the shim's other
// containers.
func (s *Service) processesBeside(c *container) (pids []int) {
	s.mu.Lock()
	var others []*container
	for _, other := range s.containers {
		if other != c {
			others = append(others, other)
		}
	}
	s.mu.Unlock()
	for _, other := range others {
		if v, ok := other.view(initProc); ok && v.Pid != 0 && v.Status != lifecycle.StatusStopped {
			pids = append(pids, v.Pid)
		}
		for pid := range other.execPids() {
			pids = append(pids, pid)
		}
	}
	return pids
}
