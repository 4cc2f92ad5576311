package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/errno"
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
	// host and spec are read with the first look for the cgroup.
	host *cgroup.Host
	spec *bundle.Spec
	// unable: the runtime could not be asked, or did not end in its time.
	unable bool
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
	if err == nil && r.noState(o) {
		return nil
	}
	if err == nil {
		err = r.spareOthers(ctx, o)
	}
	if err == nil {
		err = rt.Delete(ctx, r.id.String(), true)
	}
	var own *errno.Error
	r.unable = errors.As(err, &own)
	return err
}

// spareOthers ends the container before the runtime does, if its cgroup is
// another's too, and refuses where the runtime would kill the whole cgroup: runc
// does so for a container without a pid namespace of its own.
func (r *rooms) spareOthers(ctx context.Context, o *options.Options) error {
	group, err := r.group(o)
	if err != nil {
		return nil // there is none, or killGroup says why it cannot be found
	}
	shared, err := r.killShared(ctx, o, group)
	if err != nil || !shared {
		return err
	}
	if r.spec.PIDNamespace.New {
		return nil
	}
	return errno.Classed("the runtime is not asked to delete a container that shares its pid namespace and its cgroup",
		errdefs.ErrFailedPrecondition, errors.New("it would kill the other containers in cgroup "+group.String()))
}

// noState reports whether no runtime can have made anything of the container: it
// has made no init, and there is no directory to keep one in.
func (r *rooms) noState(o *options.Options) bool {
	_, err := os.Stat(runtimeRoot(o, r.ns))
	return errno.IsMissing(err) && neverMade(r.bundle)
}

// runtimeRoot is where the runtime keeps the containers of a namespace.
func runtimeRoot(o *options.Options, ns bundle.Namespace) string {
	return filepath.Join(cmp.Or(o.GetRoot(), defaultRuntimeRoot), ns.String())
}

// runtime is the container's OCI runtime, with deadlines that leave delete the time for
// the rest.
func (r *rooms) runtime(o *options.Options) (*oci.Runtime, error) {
	// A call is not ended by its context, only by its deadline.
	deadlines := oci.DefaultDeadlines()
	deadlines.Delete, deadlines.State = deleteRuntimeTimeout, stateRuntimeTimeout
	return oci.New(oci.Config{
		Binary: o.GetBinaryName(), Root: runtimeRoot(o, r.ns), SystemdCgroup: o.GetSystemdCgroup(),
		Dir: r.bundle.Path(), Owner: r.owner, Log: r.log, Deadlines: deadlines,
	})
}

// killLeft ends and removes what the runtime did not know of: it was killed with the
// shim, in the middle of a create, and had written nothing down.
func (r *rooms) killLeft(ctx context.Context, o *options.Options) error {
	err := r.killGroup(ctx, o)
	if r.unable {
		return err // it would only fail or hang once more
	}
	rt, rtErr := r.runtime(o)
	if rtErr == nil {
		rtErr = rt.Clear(ctx, r.id.String())
	}
	return errors.Join(err, rtErr)
}

func (r *rooms) killGroup(ctx context.Context, o *options.Options) error {
	group, err := r.group(o)
	if errno.IsMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := group.KillDir()
	if shared, err := r.killShared(ctx, o, group); shared || err != nil {
		return err
	}
	if dir != "" {
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

// group is the container's cgroup as its spec names it. errno.ErrMissing if there
// is none.
func (r *rooms) group(o *options.Options) (cgroup.Group, error) {
	if r.host == nil {
		host, err := cgroup.NewHost()
		if err != nil {
			return cgroup.Group{}, err
		}
		spec, err := r.bundle.ReadSpec()
		if err != nil {
			return cgroup.Group{}, err
		}
		r.host, r.spec = host, spec
	}
	return r.host.FromSpec(r.spec.CgroupsPath, r.id.String(), o.GetSystemdCgroup())
}

// killShared kills what is the container's in a cgroup that is another's too.
// It reports whether the cgroup is shared: then it is neither killed as a whole
// nor removed.
func (r *rooms) killShared(ctx context.Context, o *options.Options, group cgroup.Group) (shared bool, err error) {
	pids, err := group.Pids()
	if errno.IsMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// The runtime's directory can be read without the runtime.
	state := oci.Reader(runtimeRoot(o, r.ns), r.log)
	others := state.Sharers(r.id.String(), pids)
	if len(others) == 0 {
		return false, nil
	}
	b := children.Belongings{}
	for _, other := range others {
		b.Others = append(b.Others, other.Pid)
	}
	if init, ok := state.Init(r.id.String()); ok && init.Start != 0 {
		b.Init, b.Start = init.Pid, init.Start
	}
	strangers, err := r.owner.KillOwn(ctx, group.KillDir(), b)
	if err == nil && strangers > 0 {
		r.log.Warn("another container uses the same cgroup; whose processes these are is not known, and they are left",
			"cgroup", group.String(), "other", others[0].Container, "processes", strangers)
	}
	return true, err
}

func (r *rooms) unmount() error { return rootfs.New(r.owner).Unmount(r.bundle.Path()) }

func (r *rooms) close() error { return r.owner.Close() }
