package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/larkshim/lark/internal/errno"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/lifecycle"
)

// Delete removes a process that does not run: of an exec its stdio, of init the
// container. A created init is killed first and its exit announced. Others who ask
// meanwhile get the same answer. FailedPrecondition if the process runs.
func (s *Service) Delete(ctx context.Context, r *task.DeleteRequest) (*task.DeleteResponse, error) {
	c, p, _, err := s.locate(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	return c.delete(ctx, p)
}

// delete is Delete of a process that was found.
func (c *container) delete(ctx context.Context, p *process) (*task.DeleteResponse, error) {
	for {
		d, o, again, err := c.beginDelete(p)
		switch {
		case errors.Is(err, lifecycle.ErrDeleting) && d != nil:
			return d.wait(ctx)
		case err != nil:
			return nil, err
		case !again:
			c.finishDelete(context.WithoutCancel(ctx), p, d, o)
			return d.answer, d.err
		}
		select {
		case <-p.exited:
		case <-ctx.Done():
			return nil, fmt.Errorf("init of container %q was killed and has not exited yet: %w", c.id, context.Cause(ctx))
		}
	}
}

// beginDelete asks the rules for the delete of p, and enters it.
func (c *container) beginDelete(p *process) (d *deletion, o *obligation, again bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc(p.id) != p { // its id may be that of another exec by now
		return nil, nil, false, notFound("process %q was deleted", p.id)
	}
	v, _ := c.machine.View(p.id)
	o, again, err = c.askLocked(lifecycle.Event{Kind: lifecycle.DeleteAsked, Proc: p.id})
	if err != nil || again {
		return p.deleting, nil, again, err
	}
	p.deleting = &deletion{
		done: make(chan struct{}),
		answer: &task.DeleteResponse{
			Pid: uint32(v.Pid), ExitStatus: v.Exit.Status, ExitedAt: timestamp(v.Exit),
		},
		// What others are told if the delete does not come to its end.
		err: fmt.Errorf("the delete of %q of container %q was broken off: %w", p.id, c.id, errdefs.ErrInternal),
	}
	return p.deleting, o, false, nil
}

func (d *deletion) wait(ctx context.Context) (*task.DeleteResponse, error) {
	select {
	case <-d.done:
		return d.answer, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// finishDelete carries the delete out and tells the rules. Others get the answer
// after that.
func (c *container) finishDelete(ctx context.Context, p *process, d *deletion, o *obligation) {
	defer close(d.done)
	defer o.Close()
	if p != c.init {
		o.onFailure(func(context.Context) error { c.forgetExec(p); return nil })
	}
	failpoint.Step("delete: allowed")
	c.drain(ctx, p)
	failpoint.Point("delete: drained")
	if p != c.init {
		c.dropExec(p, o)
		d.err = nil
		return
	}
	if !c.inFlight.stop() {
		c.log.Error("a runtime call of the container does not end")
	}
	o.onFailure(func(context.Context) error { c.inFlight.reopen(); return nil })
	if err := c.remove(ctx); err != nil {
		d.answer, d.err = nil, err
		return
	}
	failpoint.Point("delete: unmounted")
	o.resolve(nil)
	d.err = nil
	failpoint.Point("delete: announced")
}

// dropExec takes an exec out of the tables.
func (c *container) dropExec(p *process, o *obligation) {
	if err := c.bundle.RemovePID(p.execID); err != nil {
		c.log.Warn("the pid file of an exec was left behind", "exec", p.id, "error", err)
	}
	failpoint.Step("delete: pid file removed")
	o.resolve(func(*lifecycle.Event) { c.forgetExecLocked(p) })
}

func (c *container) forgetExec(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetExecLocked(p)
}

// forgetExecLocked takes an exec out of the table; c.mu is held. Another of its id
// may be there already.
func (c *container) forgetExecLocked(p *process) {
	if c.execs[p.id] == p {
		delete(c.execs, p.id)
	}
	abandon(p, notFound("process %q was deleted", p.id))
}

// drain waits, within stdio's bound, until the process's output was copied, and
// lets go of its stdio. A process that somebody in the background has inherited
// the output from is not waited for longer.
func (c *container) drain(ctx context.Context, p *process) {
	defer c.service.reserve.look()
	io := p.io.Take()
	if io == nil {
		return
	}
	defer func() {
		if err := io.Close(); err != nil {
			c.log.Warn("stdio was not closed in order", "process", p.id, "error", err)
		}
	}()
	failpoint.Step("delete: draining")
	if err := io.Drain(ctx); err != nil {
		c.log.Warn("output may be lost", "process", p.id, "error", err)
	}
}

// remove removes the container from the runtime and its root filesystem from the
// host. One that the runtime does not know any more counts as removed: a checkpoint
// removes the container too.
func (c *container) remove(ctx context.Context) error {
	err := c.deleteFromRuntime(ctx)
	failpoint.Point("delete: runtime returned")
	switch {
	case errdefs.IsNotFound(err):
		// Who has lost its state has not removed the cgroup either.
		if err := c.cgroup().Remove(); err != nil && !errno.IsMissing(err) {
			c.log.Warn("the cgroup of a container that the runtime does not know is left", "error", err)
		}
	case err != nil:
		return fmt.Errorf("failed to delete task: %w", err)
	}
	if err := c.service.reserve.during(c.unmount); err != nil {
		return fmt.Errorf("failed rootfs umount: %w", err)
	}
	return nil
}

// The runtimes' words for a frozen container, and for one that was not started.
const (
	statusPaused  = "paused"
	statusCreated = "created"
)

// deleteFromRuntime has the runtime forget a container whose init is dead. With cgroup
// v2 a frozen init dies of SIGKILL, and runc, which looks at the freezer first, goes on
// to call the container paused and refuses: what is dead is thawed then.
func (c *container) deleteFromRuntime(ctx context.Context) error {
	rt, err := c.remover()
	if err != nil {
		return err
	}
	if c.init.child == nil && !rt.Known(c.id) {
		return nil // the runtime has never made it: it was to be restored
	}
	err = c.service.reserve.during(func() error { return rt.Delete(ctx, c.id, false) })
	if err == nil || errdefs.IsNotFound(err) {
		return err
	}
	if state, stateErr := rt.State(ctx, c.id); stateErr != nil || state.Status != statusPaused {
		return err
	}
	if thawErr := rt.Resume(ctx, c.id); thawErr != nil {
		return errors.Join(err, thawErr)
	}
	return rt.Delete(ctx, c.id, false)
}

// timestamp is Go's zero time, in the year 1, for a process that has not exited, as
// upstream's shim has it: containerd turns a missing timestamp into 1970, which looks
// like an exit to clients that ask for time.Time's IsZero.
func timestamp(e lifecycle.Exit) *timestamppb.Timestamp { return timestamppb.New(e.At) }
