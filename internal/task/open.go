package task

import (
	"fmt"
	"log/slog"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/outbox"
)

// Process is what a shim's process gives to its task service.
type Process struct {
	Namespace bundle.Namespace
	Outbox    *outbox.Outbox
	Log       *slog.Logger
	// Shutdown is Config.Shutdown.
	Shutdown func()
}

// Open makes the task service of a shim's process, which thereby becomes the owner of
// its children. NotImplemented on a kernel that is too old.
func Open(p Process) (*Service, error) {
	owner, err := children.NewOwner(p.Log)
	if err != nil {
		return nil, err
	}
	cgroups, err := cgroup.NewHost()
	if err != nil {
		owner.Close()
		return nil, fmt.Errorf("the layout of cgroups: %w", err)
	}
	return New(Config{
		Namespace: p.Namespace, Owner: owner, Cgroups: cgroups, Outbox: p.Outbox, Log: p.Log, Shutdown: p.Shutdown,
	}), nil
}

// Close gives the owner of the children back. The containers go on.
func (s *Service) Close() error { return s.cfg.Owner.Close() }
