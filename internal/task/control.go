package task

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/lifecycle"
)

// Pause freezes the container. FailedPrecondition unless it is running.
func (s *Service) Pause(ctx context.Context, r *task.PauseRequest) (*emptypb.Empty, error) {
	return s.turn(ctx, r.ID, turning{lifecycle.PauseAsked, lifecycle.Paused, lifecycle.PauseFailed, ociRuntime.Pause})
}

// Resume thaws it. FailedPrecondition unless it is paused.
func (s *Service) Resume(ctx context.Context, r *task.ResumeRequest) (*emptypb.Empty, error) {
	return s.turn(ctx, r.ID, turning{lifecycle.ResumeAsked, lifecycle.Resumed, lifecycle.ResumeFailed, ociRuntime.Resume})
}

// turning is a pause or a resume.
type turning struct {
	asked, done, failed lifecycle.Kind
	call                func(ociRuntime, context.Context, string) error
}

func (s *Service) turn(ctx context.Context, id string, t turning) (*emptypb.Empty, error) {
	c, _, _, err := s.locate(id, "")
	if err != nil {
		return nil, err
	}
	if _, err := c.step(lifecycle.Event{Kind: t.asked}); err != nil {
		return nil, err
	}
	if err := t.call(c.runtime, context.WithoutCancel(ctx), c.id); err != nil {
		c.report(lifecycle.Event{Kind: t.failed})
		return nil, err
	}
	c.report(lifecycle.Event{Kind: t.done})
	return &emptypb.Empty{}, nil
}

// Update changes the container's resources. InvalidArgument if they are not JSON
// of OCI Linux resources; the runtime's own error if it refuses them.
func (s *Service) Update(ctx context.Context, r *task.UpdateTaskRequest) (*emptypb.Empty, error) {
	c, _, _, err := s.locate(r.ID, "")
	if err != nil {
		return nil, err
	}
	var resources specs.LinuxResources
	if err := json.Unmarshal(r.Resources.GetValue(), &resources); err != nil {
		return nil, fmt.Errorf("resources for container %q: %w: %w", c.id, err, errdefs.ErrInvalidArgument)
	}
	if _, err := c.step(lifecycle.Event{Kind: lifecycle.UpdateAsked}); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, c.runtime.Update(context.WithoutCancel(ctx), c.id, &resources)
}

// Stats reads the container's cgroup. NotFound if there is none, as before the
// start of a restored container.
func (s *Service) Stats(_ context.Context, r *task.StatsRequest) (*task.StatsResponse, error) {
	c, _, _, err := s.locate(r.ID, "")
	if err != nil {
		return nil, err
	}
	stats, err := c.cgroup().Stats()
	if err != nil {
		return nil, fmt.Errorf("cgroup of container %q: %w", c.id, err)
	}
	return &task.StatsResponse{Stats: stats}, nil
}
