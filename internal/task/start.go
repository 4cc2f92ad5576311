package task

import (
	"context"
	"errors"

	"github.com/containerd/containerd/api/runtime/task/v2"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/oci"
	"github.com/larkshim/lark/lifecycle"
)

// Start starts init or an exec. The start is announced before the answer is given,
// and before the exit, however early that was. FailedPrecondition if the rules do
// not allow it, the runtime's own error if that fails; a process whose start failed
// cannot be started again.
func (s *Service) Start(ctx context.Context, r *task.StartRequest) (*task.StartResponse, error) {
	c, _, _, err := s.locate(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	turn, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer turn.Leave()
	// Another process may have the id by now.
	c, p, _, err := s.locate(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	o, err := c.ask(p, lifecycle.Event{Kind: lifecycle.StartAsked, Proc: p.id})
	if err != nil {
		return nil, err
	}
	defer o.Close()
	failpoint.Point("start: allowed")
	ctx = context.WithoutCancel(ctx)
	switch {
	case p != c.init:
		return c.startExec(ctx, p, o)
	case p.child == nil:
		return c.restore(ctx, o)
	default:
		return c.startInit(ctx, o)
	}
}

// startInit lets the created init go. A start that is told as failed must not have
// happened: init is killed unless the runtime says that it still waits.
func (c *container) startInit(ctx context.Context, o *obligation) (*task.StartResponse, error) {
	o.onFailure(func(context.Context) error { c.killInit(); return nil })
	err := c.runtime.Start(ctx, c.id)
	failpoint.Point("start: runtime returned")
	if err != nil {
		if !errors.Is(err, context.DeadlineExceeded) && c.stillCreated(ctx) {
			o.keep()
		}
		return nil, err
	}
	o.resolve(nil)
	failpoint.Point("start: announced")
	return &task.StartResponse{Pid: uint32(c.init.child.Pid())}, nil
}

// stillCreated says whether a start that failed has left init waiting: the client
// may then try again. Where the runtime cannot be executed it has started nothing.
func (c *container) stillCreated(ctx context.Context) bool {
	state, err := c.runtime.State(ctx, c.id)
	return err != nil && !errors.Is(err, context.DeadlineExceeded) || err == nil && state.Status == statusCreated
}

// restore starts a container that was created from a checkpoint.
func (c *container) restore(ctx context.Context, o *obligation) (_ *task.StartResponse, err error) {
	io, mine := c.init.io.Load(), c.before()
	o.onFailure(c.init.dropIO)
	o.onFailure(func(ctx context.Context) error { c.clear(ctx, mine); return nil })
	o.child, err = c.runtime.Restore(ctx, c.id, oci.RestoreCall{
		PidFile: c.bundle.PIDPath(bundle.ExecID{}), Namespace: c.pidns, IO: io,
		ImagePath: c.checkpoint.image, ParentPath: c.checkpoint.parent, WorkPath: firstOf(c.options.CriuWorkPath, c.bundle.Work()),
		NoPivot: c.options.NoPivotRoot,
	})
	failpoint.Step("restore: runtime returned")
	if err == nil {
		err = c.attach(ctx, io)
	}
	if err != nil {
		return nil, err
	}
	return &task.StartResponse{Pid: uint32(c.begin(o))}, nil
}

// startExec has the runtime start an exec. If a step after that fails, its process is
// killed, and the rules are told of the failure when it is gone: until then it holds
// init's exit back (W9).
func (c *container) startExec(ctx context.Context, p *process, o *obligation) (*task.StartResponse, error) {
	o.onFailure(p.dropIO)
	if err := c.callExec(ctx, p, o); err != nil {
		return nil, err
	}
	failpoint.Point("exec: attached")
	o.resolve(func(ev *lifecycle.Event) {
		p.child = o.child
		ev.Pid = p.child.Pid()
	})
	failpoint.Step("exec: announced")
	return &task.StartResponse{Pid: uint32(p.child.Pid())}, nil
}

// callExec makes the runtime call of an exec and attaches its stdio.
func (c *container) callExec(ctx context.Context, p *process, o *obligation) error {
	io, err := c.service.rooms.newStreams(ctx, c.log, p.stdio)
	if err != nil {
		return err
	}
	p.setIO(io)
	c.service.reserve.look()
	failpoint.Point("exec: stdio open")
	o.child, err = c.runtime.Exec(ctx, c.id, oci.ExecCall{
		PidFile: c.bundle.PIDPath(p.execID), Namespace: c.pidns, IO: io, Process: sized(p.spec, p.size.Load()),
	})
	p.spec = nil
	failpoint.Step("exec: runtime returned")
	if err != nil {
		return err
	}
	return c.attach(ctx, io)
}
