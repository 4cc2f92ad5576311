package task

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/admission"
	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/outbox"
	"github.com/larkshim/lark/internal/rootfs"
	"github.com/larkshim/lark/lifecycle"
	shimrules "github.com/larkshim/lark/lifecycle/shim"
)

// Config is what a Service needs. All fields are required.
type Config struct {
	// Namespace is the containerd namespace of every container of this shim.
	Namespace bundle.Namespace
	// Owner owns this process's children.
	Owner *children.Owner
	// Cgroups is the host's cgroup layout.
	Cgroups *cgroup.Host
	// Outbox takes the announcements.
	Outbox *outbox.Outbox
	Log    *slog.Logger
	// Shutdown begins the end of the shim and returns at once. It is called once,
	// when the shim's rules say so.
	Shutdown func()
	// Alone is how long the shim has to be without a connection before it looks
	// whether anything can still be asked of it. It never looks if that is zero.
	Alone time.Duration
}

// Service is the task API for the containers of one shim. Its methods are those
// of containerd.task.v2.Task, and of v3, whose messages are the same; they may be
// called from any number of goroutines. Their errors are of containerd/errdefs.
type Service struct {
	cfg     Config
	rooms   rooms
	mounter *rootfs.Mounter
	reserve *reserve
	calls   *admission.Queue
	// attachTime is the bound of that name; tests of runtimes that come near it
	// shorten it.
	attachTime time.Duration
	// removePause is the bound of that name, for tests too.
	removePause time.Duration
	// clock is time.Now; a test makes it jump.
	clock func() time.Time
	// observe, where it is set, is called with every step of a container's machine
	// under its lock; a simulation sets it.
	observe func(*container, lifecycle.Event, []lifecycle.Effect, error)

	mu sync.Mutex
	// containers holds every container from before its runtime call to after its
	// delete: one that is being made or removed keeps the shim up (W4) and its id
	// taken.
	containers map[string]*container
	shim       whole
}

var _ taskapi.TTRPCTaskService = (*Service)(nil)

// New makes a service without containers.
func New(cfg Config) *Service {
	s := &Service{
		cfg: cfg, rooms: kernel{cfg.Owner, cfg.Cgroups}, mounter: rootfs.New(cfg.Owner),
		reserve: newReserve(reserved), calls: newCalls(cfg.Log), attachTime: attachTime, removePause: removePause, clock: time.Now,
		containers: make(map[string]*container),
	}
	s.beginShim()
	return s
}

// admit enters a container that is about to be made.
func (s *Service) admit(ctx context.Context, c *container) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[c.id] != nil {
		return fmt.Errorf("container %q: %w", c.id, errdefs.ErrAlreadyExists)
	}
	return s.enterLocked(ctx, c)
}

// dismiss drops a container; see lifecycle.Forget.
func (s *Service) dismiss(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[c.id] == c {
		delete(s.containers, c.id)
		_ = s.stepShimLocked(shimrules.Event{Kind: shimrules.Gone, ID: c.number})
	}
}

// find returns the container of that id.
func (s *Service) find(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil {
		return c, nil
	}
	return nil, notFound("container not created: %q", id)
}

// Shutdown ends the shim if it has no container. Otherwise it does nothing, which
// is no error either: containerd asks after every delete. While a create is in flight
// it is remembered, and ends the shim if nothing comes of that.
func (s *Service) Shutdown(context.Context, *taskapi.ShutdownRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	failpoint.Step("shutdown: locked")
	_ = s.stepShimLocked(shimrules.Event{Kind: shimrules.ShutdownAsked})
	return &emptypb.Empty{}, nil
}

// Connect tells the pids of the shim and of init, 0 if there is no such container.
func (s *Service) Connect(_ context.Context, r *taskapi.ConnectRequest) (*taskapi.ConnectResponse, error) {
	failpoint.Step("connect: begun")
	answer := &taskapi.ConnectResponse{ShimPid: uint32(os.Getpid())}
	if c, err := s.find(r.ID); err == nil {
		if v, ok := c.view(initProc); ok {
			answer.TaskPid = uint32(v.Pid)
		}
	}
	return answer, nil
}
