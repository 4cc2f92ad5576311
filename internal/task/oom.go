package task

// oom.go: the watch for OOM kills, from the creation of a container to its init's
// exit.

import (
	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/lifecycle"
)

// watchOOM finds the cgroup of a new init, which may be dead by now, and begins to
// watch it for OOM kills.
func (c *container) watchOOM(pid int) {
	group, err := c.service.rooms.locate(pid, c.cgroupsPath, c.id, c.options.SystemdCgroup)
	if err != nil {
		c.log.Warn("no cgroup: no stats, and no OOM kill will be reported", "error", err)
		return
	}
	c.group = group
	if err := c.group.EnableControllers(); err != nil {
		c.log.Warn("controllers cannot be enabled below the container's cgroup", "error", err)
	}
	for _, g := range append([]cgroup.Group{group}, c.restoredInto(group)...) {
		w, err := c.service.rooms.watchOOM(g, c.struck)
		if err != nil {
			c.log.Warn("OOM kills of this container will not be reported as they happen", "cgroup", g, "error", err)
		}
		if w != nil {
			c.oom = append(c.oom, w)
		}
	}
}

// restoredInto is the cgroup that the runtime has made for a restored container,
// if init is not in it: CRIU puts init back where it was dumped, and the runtime
// puts execs into the container's own.
func (c *container) restoredInto(inits cgroup.Group) []cgroup.Group {
	if c.checkpoint.image == "" {
		return nil
	}
	own, err := c.service.rooms.fromSpec(c.cgroupsPath, c.id, c.options.SystemdCgroup)
	if err != nil || own.Dir("memory") == inits.Dir("memory") {
		return nil
	}
	return []cgroup.Group{own}
}

// lastLook ends the watch for OOM kills.
func (c *container) lastLook(o *obligation) {
	oom, err := c.oom.Last(c.struckDead.Load())
	if err != nil {
		c.log.Warn("an OOM kill may have been missed", "error", err)
	}
	failpoint.Point("exit: looked")
	o.resolve(func(ev *lifecycle.Event) { ev.OOM = oom })
	failpoint.Point("exit: announced")
}
