package shimclient

// The task API of a running shim. The messages of v2 and v3 are the same; only the
// service's name differs, so the calls are made by name.

import (
	"context"
	"errors"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// namespaceHeader carries the namespace of a call, as the daemon's client sends it.
const namespaceHeader = "containerd-namespace-ttrpc"

// Task calls the task service of one shim. Its methods may be called from any
// goroutine. Errors are of errdefs' classes: errdefs.ErrUnavailable when the shim's
// connection is gone, the context's own error when that ended first.
type Task struct {
	client    *ttrpc.Client
	service   string
	namespace string
}

// call is one round trip.
func (t *Task) call(ctx context.Context, method string, req, resp proto.Message) error {
	ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{namespaceHeader: {t.namespace}})
	err := t.client.Call(ctx, t.service, method, req, resp)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ttrpc.ErrClosed):
		return errors.Join(err, errdefs.ErrUnavailable)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errgrpc.ToNative(err)
}

// ask is a call whose answer is a message of its own.
func ask[Resp any, P interface {
	*Resp
	proto.Message
}](ctx context.Context, t *Task, method string, req proto.Message) (P, error) {
	resp := P(new(Resp))
	if err := t.call(ctx, method, req, resp); err != nil {
		return nil, err
	}
	return resp, nil
}

// State answers how a process is.
func (t *Task) State(ctx context.Context, r *taskapi.StateRequest) (*taskapi.StateResponse, error) {
	return ask[taskapi.StateResponse](ctx, t, "State", r)
}

// Create makes a container.
func (t *Task) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	return ask[taskapi.CreateTaskResponse](ctx, t, "Create", r)
}

// Start starts a container's init or an exec.
func (t *Task) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	return ask[taskapi.StartResponse](ctx, t, "Start", r)
}

// Delete removes what is left of a process that has ended.
func (t *Task) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	return ask[taskapi.DeleteResponse](ctx, t, "Delete", r)
}

// Wait answers when a process has ended.
func (t *Task) Wait(ctx context.Context, r *taskapi.WaitRequest) (*taskapi.WaitResponse, error) {
	return ask[taskapi.WaitResponse](ctx, t, "Wait", r)
}

// Connect answers the pids of the shim and of a container's init.
func (t *Task) Connect(ctx context.Context, r *taskapi.ConnectRequest) (*taskapi.ConnectResponse, error) {
	return ask[taskapi.ConnectResponse](ctx, t, "Connect", r)
}

// Exec adds a process to a container; Start starts it.
func (t *Task) Exec(ctx context.Context, r *taskapi.ExecProcessRequest) error {
	return t.call(ctx, "Exec", r, &emptypb.Empty{})
}

// Kill sends a signal.
func (t *Task) Kill(ctx context.Context, r *taskapi.KillRequest) error {
	return t.call(ctx, "Kill", r, &emptypb.Empty{})
}

// ResizePty tells a terminal its size.
func (t *Task) ResizePty(ctx context.Context, r *taskapi.ResizePtyRequest) error {
	return t.call(ctx, "ResizePty", r, &emptypb.Empty{})
}

// CloseIO closes a process's standard input.
func (t *Task) CloseIO(ctx context.Context, r *taskapi.CloseIORequest) error {
	return t.call(ctx, "CloseIO", r, &emptypb.Empty{})
}

// Shutdown asks the shim to end. A shim that still has a task answers and stays.
func (t *Task) Shutdown(ctx context.Context, r *taskapi.ShutdownRequest) error {
	return t.call(ctx, "Shutdown", r, &emptypb.Empty{})
}

// Pids lists the processes of a container.
func (t *Task) Pids(ctx context.Context, r *taskapi.PidsRequest) (*taskapi.PidsResponse, error) {
	return ask[taskapi.PidsResponse](ctx, t, "Pids", r)
}

// Stats reads a container's cgroup.
func (t *Task) Stats(ctx context.Context, r *taskapi.StatsRequest) (*taskapi.StatsResponse, error) {
	return ask[taskapi.StatsResponse](ctx, t, "Stats", r)
}

// Pause freezes a container.
func (t *Task) Pause(ctx context.Context, r *taskapi.PauseRequest) error {
	return t.call(ctx, "Pause", r, &emptypb.Empty{})
}

// Resume thaws a container.
func (t *Task) Resume(ctx context.Context, r *taskapi.ResumeRequest) error {
	return t.call(ctx, "Resume", r, &emptypb.Empty{})
}

// Update changes a container's resources.
func (t *Task) Update(ctx context.Context, r *taskapi.UpdateTaskRequest) error {
	return t.call(ctx, "Update", r, &emptypb.Empty{})
}

// Checkpoint dumps a container.
func (t *Task) Checkpoint(ctx context.Context, r *taskapi.CheckpointTaskRequest) error {
	return t.call(ctx, "Checkpoint", r, &emptypb.Empty{})
}
