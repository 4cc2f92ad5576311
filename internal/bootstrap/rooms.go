package bootstrap

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/oci"
	"github.com/larkshim/lark/internal/rootfs"
)

// defaultRuntimeRoot is where the runtime keeps its state if the options say nothing.
const defaultRuntimeRoot = "/run/containerd/runc"

// rooms is the remover that the other packages make up.
type rooms struct {
	owner  *children.Owner
	bundle *bundle.Bundle
	ns     bundle.Namespace
	id     bundle.ContainerID
	log    *slog.Logger
	// hung: the runtime did not end in its time.
	hung bool
}

func newRemover(ns bundle.Namespace, id bundle.ContainerID, b *bundle.Bundle, log *slog.Logger) (remover, error) {
	owner, err := children.NewOwner(log)
	if err != nil {
		return nil, err
	}
	return &rooms{owner: owner, bundle: b, ns: ns, id: id, log: log}, nil
}

func (r *rooms) deleteContainer(ctx context.Context, o *options.Options) error {
	dying, cancel := context.WithTimeout(ctx, dyingTimeout)
	awaitDying(dying, r.bundle.Path())
	cancel()
	rt, err := r.runtime(o)
	if err != nil {
		return err
	}
	err = rt.Delete(ctx, r.id.String(), true)
	r.hung = errors.Is(err, context.DeadlineExceeded)
	return err
}

// runtime is the container's OCI runtime, with deadlines that leave delete the time for
// the rest.
func (r *rooms) runtime(o *options.Options) (*oci.Runtime, error) {
	root := o.GetRoot()
	if root == "" {
		root = defaultRuntimeRoot
	}
	// A call is not ended by its context, only by its deadline.
	deadlines := oci.DefaultDeadlines()
	deadlines.Delete, deadlines.State = deleteRuntimeTimeout, stateRuntimeTimeout
	return oci.New(oci.Config{
		Binary: o.GetBinaryName(), Root: filepath.Join(root, r.ns.String()), SystemdCgroup: o.GetSystemdCgroup(),
		Dir: r.bundle.Path(), Owner: r.owner, Log: r.log, Deadlines: deadlines,
	})
}

// killLeft ends and removes what the runtime did not know of: it was killed with the
// shim, in the middle of a create, and had written nothing down.
func (r *rooms) killLeft(ctx context.Context, o *options.Options) error {
	err := r.killGroup(ctx, o)
	if r.hung {
		return err // it would only hang once more
	}
	rt, rtErr := r.runtime(o)
	if rtErr == nil {
		rtErr = rt.Clear(ctx, r.id.String())
	}
	return errors.Join(err, rtErr)
}

func (r *rooms) killGroup(ctx context.Context, o *options.Options) error {
	host, err := cgroup.NewHost()
	if err != nil {
		return err
	}
	spec, err := r.bundle.ReadSpec()
	if err != nil {
		return err
	}
	group, err := host.FromSpec(spec.CgroupsPath, r.id.String(), o.GetSystemdCgroup())
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if dir := group.KillDir(); dir != "" {
		if err := r.owner.KillAll(ctx, dir); err != nil {
			return err
		}
	}
	for {
		err := group.Remove()
		if !errdefs.IsUnavailable(err) {
			return err
		}
		// What was killed has to be reaped by somebody else, who gets to it soon.
		select {
		case <-ctx.Done():
			return err
		case <-time.After(removePause):
		}
	}
}

func (r *rooms) unmount() error { return rootfs.New(r.owner.Guard).Unmount(r.bundle.Path()) }

func (r *rooms) close() error { return r.owner.Close() }
