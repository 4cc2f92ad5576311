package task

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/errno"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/lifecycle"
)

var apiStatus = [...]apitypes.Status{
	lifecycle.StatusUnknown: apitypes.Status_UNKNOWN,
	lifecycle.StatusCreated: apitypes.Status_CREATED,
	lifecycle.StatusRunning: apitypes.Status_RUNNING,
	lifecycle.StatusPausing: apitypes.Status_PAUSING,
	lifecycle.StatusPaused:  apitypes.Status_PAUSED,
	lifecycle.StatusStopped: apitypes.Status_STOPPED,
}

// State tells how a process stands. It waits for nothing (W13).
func (s *Service) State(_ context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	c, p, v, err := s.locate(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	failpoint.Step("state: found")
	id := r.ID
	if r.ExecID != "" {
		id = r.ExecID // as upstream's shim has it, which leaves ExecID empty
	}
	return &task.StateResponse{
		ID: id, Bundle: c.bundle.Path(), Pid: uint32(v.Pid), Status: apiStatus[v.Status],
		Stdin: p.stdio.Stdin, Stdout: p.stdio.Stdout, Stderr: p.stdio.Stderr, Terminal: p.stdio.Terminal,
		ExitStatus: v.Exit.Status, ExitedAt: timestamp(v.Exit),
	}, nil
}

// Wait answers when the exit of a process was announced, or when it is known that
// there will be none: FailedPrecondition if its start failed, NotFound if it was
// deleted without ever having run.
func (s *Service) Wait(ctx context.Context, r *task.WaitRequest) (*task.WaitResponse, error) {
	_, p, _, err := s.locate(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	failpoint.Step("wait: begun")
	select {
	case <-p.exited:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	failpoint.Step("wait: over")
	if p.fate != nil {
		return nil, p.fate
	}
	return &task.WaitResponse{ExitStatus: p.exit.Status, ExitedAt: timestamp(p.exit)}, nil
}

// Pids lists the processes of the container, those that were exec'ed with their
// exec ids. It reads the cgroup and so waits for no runtime.
//
// A container that is stopped and not deleted has its dead init for a list: to
// containerd 1.7 and 2.x, which ask when they start, an empty one means that the
// task is a leftover, and they throw it away with its exit status (invariant 27).
func (s *Service) Pids(_ context.Context, r *task.PidsRequest) (*task.PidsResponse, error) {
	c, _, v, err := s.locate(r.ID, "")
	if err != nil {
		return nil, err
	}
	var pids []int
	if group := c.cgroup(); !group.IsZero() && v.Status != lifecycle.StatusStopped {
		if pids, err = group.Pids(); err != nil && !errno.IsMissing(err) {
			return nil, fmt.Errorf("processes of container %q: %w", c.id, err)
		}
	}
	if v.Status == lifecycle.StatusStopped && v.Pid != 0 {
		pids = []int{v.Pid}
	}
	failpoint.Step("pids: listed")
	execs := c.execPids()
	answer := &task.PidsResponse{Processes: make([]*apitypes.ProcessInfo, 0, len(pids))}
	for _, pid := range pids {
		info := &apitypes.ProcessInfo{Pid: uint32(pid)}
		if id, ok := execs[pid]; ok {
			if info.Info, err = processDetails(id); err != nil {
				return nil, err
			}
		}
		answer.Processes = append(answer.Processes, info)
	}
	return answer, nil
}

// execPids maps pids to the execs that run.
func (c *container) execPids() map[int]lifecycle.Proc {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[int]lifecycle.Proc, len(c.execs))
	c.machine.Execs(func(p lifecycle.Proc, v lifecycle.View) bool {
		if v.Pid != 0 && v.Status != lifecycle.StatusStopped {
			m[v.Pid] = p
		}
		return true
	})
	return m
}

func processDetails(id lifecycle.Proc) (*anypb.Any, error) {
	return typeurl.MarshalAnyToProto(&options.ProcessDetails{ExecID: string(id)})
}
