package task

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"

	runc "github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/oci"
	"github.com/larkshim/lark/internal/stdio"
)

// The rooms below this package, as far as their answers decide the order of
// things. A simulation puts its own in their place.

// child is a process of the container: a *children.Child.
type child interface {
	Pid() int
	Signal(unix.Signal) error
	Died(context.Context) error
	Wait(context.Context) (children.Exit, error)
}

// ociRuntime is an *oci.Runtime, whose methods have the documentation.
type ociRuntime interface {
	Known(id string) bool
	KillIsSignal() bool
	Sharers(id string, pids []int) []oci.Init
	Clear(ctx context.Context, id string) error
	Create(ctx context.Context, id string, c oci.CreateCall) (child, error)
	Start(ctx context.Context, id string) error
	Exec(ctx context.Context, id string, c oci.ExecCall) (child, error)
	Restore(ctx context.Context, id string, c oci.RestoreCall) (child, error)
	Kill(ctx context.Context, id string, sig unix.Signal, all bool) error
	Delete(ctx context.Context, id string, force bool) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Update(ctx context.Context, id string, resources *specs.LinuxResources) error
	Checkpoint(ctx context.Context, id string, c oci.CheckpointCall) error
	State(ctx context.Context, id string) (*runc.Container, error)
}

// streams is the stdio of one process: a *stdio.IO.
type streams interface {
	oci.IO
	Attach(ctx context.Context) error
	CloseStdin()
	Resize(width, height uint16) error
	Exited()
	Drain(ctx context.Context) error
	Close() error
}

// streamSlot holds the streams of a process while it has any.
type streamSlot struct{ p atomic.Pointer[streams] }

// Load returns the streams, or nil.
func (s *streamSlot) Load() streams { return streamsAt(s.p.Load()) }

// Store puts streams into the slot.
func (s *streamSlot) Store(io streams) { s.p.Store(&io) }

// Take empties the slot, and returns what it held, or nil.
func (s *streamSlot) Take() streams { return streamsAt(s.p.Swap(nil)) }

func streamsAt(p *streams) streams {
	if p == nil {
		return nil
	}
	return *p
}

// rooms makes and finds the parts of a container.
type rooms interface {
	newRuntime(c oci.Config) (ociRuntime, error)
	newStreams(ctx context.Context, log *slog.Logger, s stdio.Spec) (streams, error)
	locate(pid int, path, id string, systemd bool) (cgroup.Group, error)
	fromSpec(path, id string, systemd bool) (cgroup.Group, error)
	watchOOM(g cgroup.Group, killed func()) (oomWatch, error)
	killAll(ctx context.Context, dir string) error
	thawAll(dir string) error
	killShared(ctx context.Context, s sharing) (shared bool, err error)
}

// sharing is a container's part in a cgroup that others may use too.
type sharing struct {
	id      string
	runtime ociRuntime
	group   cgroup.Group
	// init is the container's init, nil if it has exited.
	init child
	// others are the processes of the shim's other containers.
	others []int
}

// oomWatch is a *cgroup.OOMWatch.
type oomWatch interface {
	Died()
	Last(struck bool) (bool, error)
}

// oomWatches are the watches of one container, one for each of its cgroups.
type oomWatches []oomWatch

// Died and Last do for all of them what they do for one.
func (ws oomWatches) Died() {
	for _, w := range ws {
		w.Died()
	}
}

func (ws oomWatches) Last(struck bool) (bool, error) {
	var found bool
	var errs []error
	for _, w := range ws {
		more, err := w.Last(struck)
		found = found || more
		errs = append(errs, err)
	}
	return found, errors.Join(errs...)
}

// kernel is the rooms of a running shim.
type kernel struct {
	owner   *children.Owner
	cgroups *cgroup.Host
}

func (k kernel) locate(pid int, path, id string, systemd bool) (cgroup.Group, error) {
	return k.cgroups.Locate(pid, path, id, systemd)
}

func (k kernel) fromSpec(path, id string, systemd bool) (cgroup.Group, error) {
	return k.cgroups.FromSpec(path, id, systemd)
}

func (k kernel) watchOOM(g cgroup.Group, killed func()) (oomWatch, error) {
	w, err := g.WatchOOM(killed)
	if w == nil {
		return nil, err
	}
	return w, err
}

func (k kernel) killAll(ctx context.Context, dir string) error { return k.owner.KillAll(ctx, dir) }

// killShared kills what is the container's in a cgroup in which another
// container's init lives, as the runtime has written it down. It reports whether
// the cgroup is such; if not, nothing was done.
func (k kernel) killShared(ctx context.Context, s sharing) (bool, error) {
	pids, err := s.group.Pids()
	if err != nil {
		return false, nil // killAll says why, or that there is none
	}
	b := children.Belongings{Others: slices.Clone(s.others), Adopted: true}
	shared := false
	for _, other := range s.runtime.Sharers(s.id, pids) {
		shared = true
		b.Others = append(b.Others, other.Pid)
	}
	for _, pid := range s.others {
		if slices.Contains(pids, pid) {
			// Which of the two an orphan was is not known.
			shared, b.Adopted = true, false
		}
	}
	if !shared {
		return false, nil
	}
	if s.init != nil {
		b.Init = s.init.Pid()
		if b.Start, err = k.owner.StartOf(b.Init); err != nil {
			b.Init = 0 // it has just been reaped
		}
	}
	_, err = k.owner.KillOwn(ctx, s.group.KillDir(), b)
	return true, err
}

func (k kernel) thawAll(dir string) error { return k.owner.Thaw(dir) }

func (k kernel) newRuntime(c oci.Config) (ociRuntime, error) {
	c.Owner = k.owner
	r, err := oci.New(c)
	if err != nil {
		return nil, err
	}
	return owning{r}, nil
}

func (k kernel) newStreams(ctx context.Context, log *slog.Logger, s stdio.Spec) (streams, error) {
	io, err := stdio.New(ctx, k.owner, log, s)
	if err != nil {
		return nil, err
	}
	return io, nil
}

// owning is an oci.Runtime whose children are of the interface's type, nil for
// none.
type owning struct{ *oci.Runtime }

func (r owning) Create(ctx context.Context, id string, c oci.CreateCall) (child, error) {
	return childOrNil(r.Runtime.Create(ctx, id, c))
}

func (r owning) Exec(ctx context.Context, id string, c oci.ExecCall) (child, error) {
	return childOrNil(r.Runtime.Exec(ctx, id, c))
}

func (r owning) Restore(ctx context.Context, id string, c oci.RestoreCall) (child, error) {
	return childOrNil(r.Runtime.Restore(ctx, id, c))
}

func childOrNil(c *children.Child, err error) (child, error) {
	if c == nil {
		return nil, err
	}
	return c, err
}
