package task

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/oci"
	"github.com/larkshim/lark/internal/routine"
	"github.com/larkshim/lark/lifecycle"
)

// Start starts init or an exec. The start is announced before the answer is given,
// and before the exit, however early that was. FailedPrecondition if the rules do
// not allow it, the runtime's own error if that fails; a process whose start failed
// cannot be started again.
func (s *Service) Start(ctx context.Context, r *task.StartRequest) (*task.StartResponse, error) {
	c, p, _, err := s.locate(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if _, err := c.step(lifecycle.Event{Kind: lifecycle.StartAsked, Proc: p.id}); err != nil {
		return nil, err
	}
	failpoint.Point("start: allowed")
	ctx = context.WithoutCancel(ctx)
	switch {
	case p != c.init:
		return c.startExec(ctx, p)
	case p.child == nil:
		return c.restore(ctx)
	default:
		return c.startInit(ctx)
	}
}

// startInit lets the created init go.
func (c *container) startInit(ctx context.Context) (*task.StartResponse, error) {
	err := c.runtime.Start(ctx, c.id)
	failpoint.Point("start: runtime returned")
	if err == nil {
		c.report(lifecycle.Event{Kind: lifecycle.Started})
		failpoint.Point("start: announced")
		return &task.StartResponse{Pid: uint32(c.init.child.Pid())}, nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		// Nobody knows whether it runs. It was told as failed, so it must not run.
		c.mu.Lock()
		c.killInit()
		c.mu.Unlock()
	}
	c.report(lifecycle.Event{Kind: lifecycle.StartFailed})
	return nil, err
}

// restore starts a container that was created from a checkpoint.
func (c *container) restore(ctx context.Context) (*task.StartResponse, error) {
	io, mine := c.init.io.Load(), c.before()
	child, err := c.runtime.Restore(ctx, c.id, oci.RestoreCall{
		PidFile: c.bundle.PIDPath(bundle.ExecID{}), Namespace: c.pidns, IO: io,
		ImagePath: c.checkpoint.image, ParentPath: c.checkpoint.parent, WorkPath: firstOf(c.options.CriuWorkPath, c.bundle.Work()),
		NoPivot: c.options.NoPivotRoot,
	})
	if err == nil {
		err = c.attach(ctx, io)
	}
	if err != nil {
		c.undoInit(ctx, child, mine)
		c.report(lifecycle.Event{Kind: lifecycle.StartFailed})
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init.child = child
	c.watchOOM(child.Pid())
	_, _ = c.stepLocked(lifecycle.Event{Kind: lifecycle.Started, Pid: child.Pid()})
	return &task.StartResponse{Pid: uint32(child.Pid())}, nil
}

// startExec has the runtime start an exec. If a step after that fails, its process is
// killed, and the rules are told of the failure when it is gone: until then it holds
// init's exit back (W9).
func (c *container) startExec(ctx context.Context, p *process) (*task.StartResponse, error) {
	child, err := c.callExec(ctx, p)
	failpoint.Point("exec: attached")
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		p.child = child
		_, _ = c.stepLocked(lifecycle.Event{Kind: lifecycle.Started, Proc: p.id, Pid: child.Pid()})
		return &task.StartResponse{Pid: uint32(child.Pid())}, nil
	}
	failed := func() {
		p.dropIO()
		c.report(lifecycle.Event{Kind: lifecycle.StartFailed, Proc: p.id})
	}
	if child == nil {
		failed()
		return nil, err
	}
	told := make(chan struct{})
	reaped := c.end(child)
	routine.Go(c.log, "failed start", func() {
		defer close(told)
		<-reaped
		failed()
	})
	select {
	case <-told:
	case <-time.After(reapTime):
		c.log.Error("a killed exec does not die", "exec", p.id, "pid", child.Pid())
	}
	return nil, err
}

// callExec makes the runtime call of an exec and attaches its stdio. With an error it
// returns the process too, if there is one.
func (c *container) callExec(ctx context.Context, p *process) (child, error) {
	io, err := c.service.rooms.newStreams(ctx, c.log, p.stdio)
	if err != nil {
		return nil, err
	}
	p.setIO(io)
	failpoint.Point("exec: stdio open")
	child, err := c.runtime.Exec(ctx, c.id, oci.ExecCall{
		PidFile: c.bundle.PIDPath(p.execID), Namespace: c.pidns, IO: io, Process: sized(p.spec, p.size.Load()),
	})
	p.spec = nil
	if err == nil {
		err = c.attach(ctx, io)
	}
	return child, err
}
