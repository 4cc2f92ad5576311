package task

import (
	"context"

	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/errno"
)

// footprint is what a Create or a restore may leave: what was not there before it
// under the container's names. What was there is somebody else's and stays.
type footprint struct {
	// state: the runtime knew nothing of the id.
	state bool
	// group: there was no cgroup where the spec wants it.
	group bool
}

// before looks, before the runtime is called, at what is there already.
func (c *container) before() (f footprint) {
	f.state = !c.runtime.Known(c.id)
	err := c.service.reserve.during(func() error { _, err := c.specGroup(); return err })
	if f.group = errno.IsMissing(err); !f.group && err != nil {
		c.log.Warn("whether there is a cgroup already cannot be seen: if the container fails it is not removed", "error", err)
	}
	return f
}

func (c *container) specGroup() (cgroup.Group, error) {
	return c.service.rooms.fromSpec(c.cgroupsPath, c.id, c.options.SystemdCgroup)
}

// clear ends and removes what a runtime that failed has left. Most clean up after
// themselves, and then it only looks; one that was killed, or that lies, does not. In
// a pid namespace that is shared an orphan of it can be told by its cgroup alone
// (row 33).
func (c *container) clear(ctx context.Context, f footprint) {
	var group cgroup.Group
	if f.group {
		// Missing says that the runtime has not come to make one, or has removed it.
		err := c.service.reserve.during(func() (err error) { group, err = c.specGroup(); return err })
		if err != nil && !errno.IsMissing(err) {
			c.log.Error("the cgroup of a container that failed cannot be found", "error", err)
		}
	}
	if dir := group.KillDir(); dir != "" {
		kill, cancel := context.WithTimeout(ctx, killAllTime)
		defer cancel()
		if err := c.service.rooms.killAll(kill, dir); err != nil {
			c.log.Error("processes of a container that failed cannot be killed", "error", err)
		}
	}
	if f.state {
		if err := c.runtime.Clear(ctx, c.id); err != nil {
			c.log.Warn("the runtime keeps something of a container that failed", "error", err)
		}
	}
	if err := group.Remove(); err != nil && !errno.IsMissing(err) {
		c.log.Warn("the cgroup of a container that failed is left", "error", err)
	}
}
