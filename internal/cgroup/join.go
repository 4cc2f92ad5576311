package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/errno"
)

// JoinShim moves process pid, a shim, into the existing cgroup at cgroupPath (from the root of the hierarchies): of
// version 2, and of every mounted hierarchy of version 1 that has it. This is the ShimCgroup option; unlike a
// container's, the group is the administrator's: it is neither made here nor removed.
//
// Errors: errno.ErrMissing if no hierarchy has it; else the first that refused, the rest having been tried.
func (h *Host) JoinShim(cgroupPath string, pid int) error {
	if pid <= 0 || cgroupPath == "" {
		return fmt.Errorf("cgroup %q for pid %d: %w", cgroupPath, pid, errdefs.ErrInvalidArgument)
	}
	clean := path.Clean("/" + cgroupPath)
	mounts := make([]mount, 0, len(h.v1)+1)
	if h.v2.dir != "" {
		mounts = append(mounts, h.v2)
	}
	if !h.unified {
		for _, c := range h.controllers() {
			if !slices.Contains(mounts, h.v1[c]) {
				mounts = append(mounts, h.v1[c])
			}
		}
	}
	joined := 0
	var first error
	for _, m := range mounts {
		file := path.Join(m.dir, clean, "cgroup.procs")
		switch err := h.sys.writeFile(file, strconv.Itoa(pid)); {
		case err == nil:
			joined++
		case gone(err) && !h.isThere(file):
		case first == nil:
			first = fmt.Errorf("moving %d into cgroup %s: %w", pid, clean, classed(err))
		}
	}
	if first == nil && joined == 0 {
		return errno.Missing(fmt.Sprintf("cgroup %s", clean))
	}
	return first
}

// isThere tells an absent cgroup from ESRCH or ENODEV that a present one answers.
func (h *Host) isThere(file string) bool {
	_, err := h.sys.readFile(file)
	return err == nil
}

// EnableControllers hands every controller that the unified hierarchy has down to the group: runtimes enable those
// that the spec limits, but stats and the OOM count need them all. It does nothing on version 1.
//
// A level that refuses is passed over, since the one below may have them already (rootless, systemd's delegation); the
// error is that of the group's own parent, the level that counts. Files are written only where something is missing.
func (g Group) EnableControllers() error {
	if !g.v2.private {
		return nil
	}
	h := g.host
	all, err := h.sys.readFile(path.Join(h.v2.dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("listing controllers: %w", classed(err))
	}
	want := strings.Fields(string(all))
	rel := strings.TrimPrefix(path.Dir(g.v2.dir), h.v2.dir)
	dir := h.v2.dir
	err = h.enable(dir, want)
	for _, part := range strings.FieldsFunc(rel, func(r rune) bool { return r == '/' }) {
		dir = path.Join(dir, part)
		err = h.enable(dir, want)
	}
	return err
}

// enable writes what is missing to one cgroup.subtree_control: all at once, and if the kernel refuses (it takes all of
// a line or nothing), one by one, so that one controller that cannot be had does not cost the others.
func (h *Host) enable(dir string, want []string) error {
	file := path.Join(dir, "cgroup.subtree_control")
	have, err := h.sys.readFile(file)
	if err != nil {
		return fmt.Errorf("enabling controllers: %w", classed(err))
	}
	var missing []string
	for _, c := range want {
		if !slices.Contains(strings.Fields(string(have)), c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 || h.sys.writeFile(file, strings.Join(missing, " ")) == nil {
		return nil
	}
	var errs []error
	for _, c := range missing {
		if err := h.sys.writeFile(file, c); err != nil {
			errs = append(errs, fmt.Errorf("enabling controller %s: %w", c[1:], classed(err)))
		}
	}
	return errors.Join(errs...)
}
