package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/lifecycle"
)

const (
	sigkill = unix.SIGKILL
	// killedStatus is the exit status of a process that a SIGKILL has ended.
	killedStatus = 128 + uint32(sigkill)
	// unknownStatus is what is reported of a process whose status cannot be known:
	// containerd's own value for it. Never 0, which would say that all was well.
	unknownStatus = 255
)

// now is the wall clock, which exits are stamped with.
func now() time.Time { return time.Now() }

func isGone(err error) bool { return errors.Is(err, os.ErrProcessDone) }

// Kill sends a signal: to init through the runtime, unless it is a SIGKILL that
// needs none, to an exec through its pidfd.
// NotFound if the process has exited, FailedPrecondition if it is not started.
func (s *Service) Kill(ctx context.Context, r *task.KillRequest) (*emptypb.Empty, error) {
	if r.Signal < 1 || r.Signal > maxSignal {
		return nil, fmt.Errorf("signal %d is not between 1 and %d: %w", r.Signal, maxSignal, errdefs.ErrInvalidArgument)
	}
	c, p, _, err := s.locate(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if err := c.allow(p, lifecycle.KillAsked); err != nil {
		return nil, err
	}
	failpoint.Step("kill: allowed")
	sig := unix.Signal(r.Signal)
	if p != c.init {
		return &emptypb.Empty{}, c.signal(p, sig)
	}
	if sig == sigkill {
		c.sentKill.Store(true)
	}
	if sig == sigkill && c.killDirectly() {
		return &emptypb.Empty{}, nil
	}
	err = c.call(context.WithoutCancel(ctx), func(ctx context.Context) error { return c.killByRuntime(ctx, sig, r.All) })
	if errors.Is(err, errBeingDeleted) {
		err = notFound("process already finished")
	}
	return &emptypb.Empty{}, err
}

// killDirectly kills an init with which all of its pid namespace dies, and thaws
// the container's cgroups for that: what runc, crun and youki do, without the start
// of a program. False if that is not certain, or did not go well: then the runtime
// is asked.
func (c *container) killDirectly() bool {
	if c.cgroup().KillDir() == "" || c.pidns.Shared() || !c.runtime.KillIsSignal() || c.signal(c.init, sigkill) != nil {
		return false
	}
	return c.thawAll()
}

// signal sends sig through the process's pidfd.
func (c *container) signal(p *process, sig unix.Signal) error {
	err := p.child.Signal(sig)
	if isGone(err) {
		return notFound("process already finished")
	}
	return err
}

// killByRuntime has the runtime signal init, and everything else too if all. The
// runtime knows what a bare signal does not: a frozen container has to be thawed
// before it can die, and some runtimes keep their containers elsewhere. Where it
// fails (it cannot be run, or it has lost the container's state), and where it is
// not enough, the signal goes through the pidfd: that init has exited, and a
// client may forget it, the kernel alone can say.
func (c *container) killByRuntime(ctx context.Context, sig unix.Signal, all bool) error {
	if all && sig == sigkill && c.pidns.Shared() && c.cgroup().KillDir() != "" {
		kill, cancel := context.WithTimeout(ctx, killAllTime)
		defer cancel()
		if err := c.service.reserve.during(func() error { return c.killGroup(kill) }); err == nil {
			return nil
		}
	}
	err := c.service.reserve.during(func() error { return c.runtime.Kill(ctx, c.id, sig, all) })
	if err == nil && sig != sigkill {
		return nil
	}
	failed := err != nil
	if direct := c.signal(c.init, sig); failed && (direct == nil || errdefs.IsNotFound(direct)) {
		if direct == nil {
			c.log.Warn("the runtime could not signal init; it was signalled directly", "signal", sig, "error", err)
		}
		err = direct
	}
	if errdefs.IsNotFound(err) {
		return err
	}
	switch {
	case sig == sigkill && failed && !c.pidns.Shared() && c.cgroup().KillDir() != "":
		// Somebody may have frozen the cgroup, or it hangs on its way there, in which
		// runc waits for ever. Init's death is everybody's here, so that killing all,
		// which thaws first, does nothing more.
		kill, cancel := context.WithTimeout(ctx, killAllTime)
		defer cancel()
		if groupErr := c.service.reserve.during(func() error { return c.killGroup(kill) }); groupErr != nil {
			c.log.Warn("the cgroup of a killed container is not empty", "error", groupErr)
		}
	case sig == sigkill:
		c.thaw(ctx)
		// What the container has frozen itself, in cgroups below its own, the runtime
		// does not look at. A process in there does not die of init's death either, and
		// init's exit waits for it.
		c.thawAll()
	}
	return err
}

// thawAll thaws the container's cgroup and those below it, where it has one of its
// own. False if that fails.
func (c *container) thawAll() bool {
	dir := c.cgroup().KillDir()
	if dir == "" {
		return true
	}
	err := c.service.reserve.during(func() error { return c.service.rooms.thawAll(dir) })
	if err != nil {
		c.log.Warn("the cgroups of a killed container cannot be thawed", "error", err)
	}
	return err == nil
}

// thaw lets a frozen container die of the signal that it was sent: with cgroup v1 a
// frozen process takes none.
func (c *container) thaw(ctx context.Context) {
	c.mu.Lock()
	v, _ := c.machine.View(initProc)
	frozen := v.Status == lifecycle.StatusPaused || v.Status == lifecycle.StatusPausing || c.mayBeFrozen
	c.mu.Unlock()
	if !frozen {
		return
	}
	if err := c.runtime.Resume(ctx, c.id); err != nil && !errdefs.IsNotFound(err) {
		c.log.Warn("a killed container cannot be thawed", "error", err)
	}
}
