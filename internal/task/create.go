package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/admission"
	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/oci"
	"github.com/larkshim/lark/internal/stdio"
	"github.com/larkshim/lark/lifecycle"
)

// defaultRoot is where runc keeps its state if the options name no other place:
// the same as upstream's shim, so that `runc --root` of users' scripts finds it.
const defaultRoot = "/run/containerd/runc"

// createOptions is what the options of Create say, decoded.
type createOptions = *options.Options

// Create makes a container: mounts its root filesystem, opens its stdio and has
// the runtime create it. AlreadyExists if the id is taken, InvalidArgument for what
// cannot be, the runtime's own error if that fails; after an error nothing is left.
func (s *Service) Create(ctx context.Context, r *task.CreateTaskRequest) (_ *task.CreateTaskResponse, err error) {
	s.reserve.look()
	defer s.reserve.look()
	c, err := s.newContainer(r)
	if err != nil {
		return nil, err
	}
	if err := s.admit(ctx, c); err != nil {
		c.bundle.Close()
		return nil, err
	}
	o, err := c.ask(c.init, lifecycle.Event{Kind: lifecycle.CreateAsked, Shared: c.pidns.Shared(), Deferred: r.Checkpoint != ""})
	if err != nil { // not of a new machine
		return nil, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	failpoint.Step("create: allowed")
	turn, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer turn.Leave()
	if err := c.create(context.WithoutCancel(ctx), r, o); err != nil {
		return nil, err
	}
	failpoint.Point("create: attached")
	pid := c.begin(o)
	s.made(c)
	failpoint.Point("create: announced")
	return &task.CreateTaskResponse{Pid: uint32(pid)}, nil
}

// newContainer checks a request before anything is done about it.
func (s *Service) newContainer(r *task.CreateTaskRequest) (*container, error) {
	id, err := bundle.ParseContainerID(r.ID)
	if err != nil {
		return nil, err
	}
	opts, err := bundle.DecodeOptions(r.Options)
	if err != nil {
		return nil, err
	}
	b, err := bundle.Open(r.Bundle)
	if err != nil {
		return nil, err
	}
	c := &container{
		id: id.String(), service: s, bundle: b, options: opts, request: r,
		log:        s.cfg.Log.With("container", id.String()),
		machine:    lifecycle.New(),
		init:       newProcess(initProc),
		checkpoint: checkpoint{image: r.Checkpoint, parent: r.ParentCheckpoint},
		execs:      make(map[lifecycle.Proc]*process),
	}
	if err := c.configure(r); err != nil {
		b.Close()
		return nil, err
	}
	return c, nil
}

// configure reads the spec and finds the runtime.
func (c *container) configure(r *task.CreateTaskRequest) error {
	spec, err := c.bundle.ReadSpec()
	if err != nil {
		return err
	}
	if r.Checkpoint == "" && spec.Terminal != r.Terminal {
		return fmt.Errorf("terminal is %v in config.json and %v in the request: %w", spec.Terminal, r.Terminal, errdefs.ErrInvalidArgument)
	}
	owner := c.service.cfg.Owner
	switch ns := spec.PIDNamespace; {
	case ns.New:
		c.pidns = children.NewNamespace()
	case ns.Path == "":
		c.pidns = owner.OwnNamespace()
	default:
		if c.pidns, err = children.NamespaceAt(ns.Path); err != nil {
			return fmt.Errorf("pid namespace of container %q: %w", c.id, err)
		}
	}
	c.init.stdio = stdio.Spec{
		Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal,
		UID: int(c.options.IoUid), GID: int(c.options.IoGid),
		ContainerID: c.id, Namespace: c.service.cfg.Namespace.String(),
	}
	c.cgroupsPath = spec.CgroupsPath
	deadlines, err := oci.DeadlinesFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	if _, err := admission.AtOnce(os.Getenv); err != nil {
		return err
	}
	root := c.options.Root
	if root == "" {
		root = defaultRoot
	}
	c.runtimeConfig = oci.Config{
		Binary: c.options.BinaryName, Root: filepath.Join(root, c.service.cfg.Namespace.String()),
		SystemdCgroup: c.options.SystemdCgroup, Dir: c.bundle.Path(), Log: c.log,
		Deadlines: deadlines,
	}
	rt, err := c.service.rooms.newRuntime(c.runtimeConfig)
	if err != nil {
		// The words that go before every failure of a create: clients look for them.
		return fmt.Errorf("OCI runtime create failed: %w", err)
	}
	c.runtime = urgent{rt, c.service.calls}
	return nil
}

// create does the work of Create. What it began is the obligation's to undo; it has
// no child if there is to be none before Start.
func (c *container) create(ctx context.Context, r *task.CreateTaskRequest, o *obligation) error {
	// Whatever comes to be after this can be found by the delete command.
	if err := c.bundle.WriteOptions(c.options); err != nil {
		return err
	}
	failpoint.Point("create: options kept")
	if _, err := c.service.mounter.Mount(c.bundle.Path(), r.Rootfs); err != nil {
		return err
	}
	c.mounted = len(r.Rootfs) > 0
	o.onFailure(func(context.Context) error { return c.unmount() })
	failpoint.Point("create: mounted")
	io, err := c.service.rooms.newStreams(ctx, c.log, c.init.stdio)
	if err != nil {
		return err
	}
	c.init.setIO(io)
	c.service.reserve.look()
	o.onFailure(c.init.dropIO)
	failpoint.Point("create: stdio open")
	if r.Checkpoint != "" {
		return nil
	}
	mine := c.before()
	o.onFailure(func(ctx context.Context) error { c.clear(ctx, mine); return nil })
	o.child, err = c.runtime.Create(ctx, c.id, oci.CreateCall{
		PidFile: c.bundle.PIDPath(bundle.ExecID{}), Namespace: c.pidns, IO: io,
		NoPivot: c.options.NoPivotRoot, NoNewKeyring: c.options.NoNewKeyring,
	})
	failpoint.Point("create: runtime returned")
	if err != nil {
		return err
	}
	return c.attach(ctx, io)
}

func (c *container) unmount() error {
	if !c.mounted {
		return nil
	}
	return c.service.mounter.Unmount(c.bundle.Path())
}

// attach begins to copy the process's stdio.
func (c *container) attach(ctx context.Context, io streams) error {
	ctx, cancel := context.WithTimeout(ctx, c.service.attachTime)
	defer cancel()
	return io.Attach(ctx)
}

// begin tells the rules that the container was made, and returns init's pid. The
// watch for OOM kills begins first, so that none can be missed, and waits for the
// lock, so that none is announced before the container is.
func (c *container) begin(o *obligation) (pid int) {
	o.resolve(func(ev *lifecycle.Event) {
		if o.child != nil {
			pid = o.child.Pid()
			ev.Pid = pid
			c.init.child = o.child
			c.watchOOM(pid)
		}
	})
	return pid
}
