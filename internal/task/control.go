package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/lifecycle"
)

// Pause freezes the container. FailedPrecondition unless it is running.
func (s *Service) Pause(ctx context.Context, r *task.PauseRequest) (*emptypb.Empty, error) {
	c, err := s.find(r.ID)
	if err != nil {
		return nil, err
	}
	turn, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer turn.Leave()
	return s.turn(ctx, r.ID, turning{lifecycle.PauseAsked, ociRuntime.Pause})
}

// Resume thaws it. FailedPrecondition unless it is paused.
func (s *Service) Resume(ctx context.Context, r *task.ResumeRequest) (*emptypb.Empty, error) {
	return s.turn(ctx, r.ID, turning{lifecycle.ResumeAsked, ociRuntime.Resume})
}

// turning is a pause or a resume.
type turning struct {
	asked lifecycle.Kind
	call  func(ociRuntime, context.Context, string) error
}

func (s *Service) turn(ctx context.Context, id string, t turning) (*emptypb.Empty, error) {
	c, _, _, err := s.locate(id, "")
	if err != nil {
		return nil, err
	}
	o, err := c.ask(c.init, lifecycle.Event{Kind: t.asked})
	if err != nil {
		return nil, err
	}
	defer o.Close()
	failpoint.Step("turn: allowed")
	// Until the runtime has answered it is not known whether the container is frozen.
	o.onFailure(func(ctx context.Context) error { return c.seeWhetherFrozen(ctx, t.asked, o) })
	err = c.call(context.WithoutCancel(ctx), func(ctx context.Context) error { return t.call(c.runtime, ctx, c.id) })
	failpoint.Step("turn: runtime returned")
	if err != nil {
		o.keep()
		if t.asked == lifecycle.PauseAsked && !errdefs.IsNotFound(err) {
			o.onFailure(c.undoPause)
		}
		return nil, err
	}
	o.resolve(func(*lifecycle.Event) { c.mayBeFrozen = false })
	failpoint.Step("turn: announced")
	return &emptypb.Empty{}, nil
}

// call makes a runtime call that ends when the container is deleted.
func (c *container) call(ctx context.Context, call func(context.Context) error) error {
	ctx, done, err := c.inFlight.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	err = call(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errBeingDeleted) {
		return fmt.Errorf("%w: %v", errBeingDeleted, err)
	}
	return err
}

// seeWhetherFrozen asks the runtime how a pause or resume has ended of which the
// answer was lost, and makes that the outcome.
func (c *container) seeWhetherFrozen(ctx context.Context, asked lifecycle.Kind, o *obligation) error {
	state, err := c.runtime.State(ctx, c.id)
	if err == nil && (state.Status == statusPaused) == (asked == lifecycle.PauseAsked) {
		o.failure = o.success
	}
	return err
}

// undoPause thaws a container of which the runtime says that it could not be
// frozen: it may have come half the way, and a client that was refused a pause
// cannot ask for a resume. Where that fails too, Kill thaws the container.
func (c *container) undoPause(ctx context.Context) error {
	c.setMayBeFrozen(true)
	if c.call(ctx, func(ctx context.Context) error { return c.runtime.Resume(ctx, c.id) }) == nil {
		c.setMayBeFrozen(false)
	}
	return nil
}

func (c *container) setMayBeFrozen(may bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mayBeFrozen = may
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
	turn, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer turn.Leave()
	if _, err := c.step(lifecycle.Event{Kind: lifecycle.UpdateAsked}); err != nil {
		return nil, err
	}
	failpoint.Step("update: allowed")
	return &emptypb.Empty{}, c.call(context.WithoutCancel(ctx), func(ctx context.Context) error {
		return c.runtime.Update(ctx, c.id, &resources)
	})
}

// Stats reads the container's cgroup. FailedPrecondition if there is none, as
// before the start of a restored container.
func (s *Service) Stats(_ context.Context, r *task.StatsRequest) (*task.StatsResponse, error) {
	c, _, _, err := s.locate(r.ID, "")
	if err != nil {
		return nil, err
	}
	failpoint.Step("stats: found")
	stats, err := c.cgroup().Stats()
	if err != nil {
		return nil, fmt.Errorf("cgroup of container %q: %w", c.id, err)
	}
	return &task.StatsResponse{Stats: stats}, nil
}
