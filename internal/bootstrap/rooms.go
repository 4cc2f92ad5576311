package bootstrap

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/containerd/containerd/api/types/runc/options"

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
}

func newRemover(ns bundle.Namespace, id bundle.ContainerID, b *bundle.Bundle, log *slog.Logger) (remover, error) {
	owner, err := children.NewOwner(log)
	if err != nil {
		return nil, err
	}
	return &rooms{owner: owner, bundle: b, ns: ns, id: id, log: log}, nil
}

func (r *rooms) deleteContainer(ctx context.Context, o *options.Options) error {
	root := o.GetRoot()
	if root == "" {
		root = defaultRuntimeRoot
	}
	// A call is not ended by its context, only by its deadline.
	deadlines := oci.DefaultDeadlines()
	deadlines.Delete, deadlines.State = deleteRuntimeTimeout, stateRuntimeTimeout
	rt, err := oci.New(oci.Config{
		Binary: o.GetBinaryName(), Root: filepath.Join(root, r.ns.String()), SystemdCgroup: o.GetSystemdCgroup(),
		Dir: r.bundle.Path(), Owner: r.owner, Log: r.log, Deadlines: deadlines,
	})
	if err != nil {
		return err
	}
	return rt.Delete(ctx, r.id.String(), true)
}

func (r *rooms) killLeft(ctx context.Context, o *options.Options) error {
	host, err := cgroup.NewHost()
	if err != nil {
		return err
	}
	spec, err := r.bundle.ReadSpec()
	if err != nil {
		return err
	}
	group, err := host.FromSpec(spec.CgroupsPath, r.id.String(), o.GetSystemdCgroup())
	if err != nil {
		return err
	}
	if dir := group.KillDir(); dir != "" {
		return r.owner.KillAll(ctx, dir)
	}
	return nil
}

func (r *rooms) unmount() error { return rootfs.New(r.owner.Guard).Unmount(r.bundle.Path()) }

func (r *rooms) close() error { return r.owner.Close() }
