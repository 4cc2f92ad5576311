package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// FromSpec finds the cgroup that a runtime has made for a container, from linux.cgroupsPath of its config.json (may be
// empty), its id and whether the runtime was told to let systemd make it. The first place that exists is taken, since
// runtimes differ in where they put a relative path or none.
//
// Errors: errno.ErrMissing if nothing of the kind exists (any more), InvalidArgument for a path that systemd cannot have; the
// kernel's, with its class, if that cannot be found out: who took this for "nothing" would leave processes, or kill those
// of somebody who was there before.
func (h *Host) FromSpec(cgroupsPath, id string, systemd bool) (Group, error) {
	own, err := h.ownMembership()
	if err != nil {
		return Group{}, err
	}
	candidates, err := candidates(cgroupsPath, id, systemd)
	if err != nil {
		return Group{}, err
	}
	for _, c := range candidates {
		g, err := h.existing(c, own)
		if err != nil {
			return Group{}, fmt.Errorf("cgroup of container %s: %w", id, classed(err))
		}
		if len(g.private()) > 0 {
			return g, nil
		}
	}
	return Group{}, errno.Missing(fmt.Sprintf("container %s has no cgroup (path %q)", id, cgroupsPath))
}

// candidate is a place where the container's group may be.
type candidate struct {
	path string
	// relative to the runtime's own cgroup, which is the shim's; on version 2 to the parent of that, because a group
	// with processes in it cannot hand controllers to its children.
	relative bool
}

func candidates(cgroupsPath, id string, systemd bool) ([]candidate, error) {
	if systemd {
		units, err := units(cgroupsPath, id)
		if err != nil {
			return nil, err
		}
		var all []candidate
		for _, u := range units {
			all = append(all, candidate{path: u})
		}
		return all, nil
	}
	if cgroupsPath == "" {
		cgroupsPath = id
	}
	// Cleaned as an absolute path so that it cannot leave the hierarchy, as runc does with it.
	clean := path.Clean("/" + cgroupsPath)
	if clean == "/" {
		return nil, fmt.Errorf("cgroup path %q is the root: %w", cgroupsPath, errdefs.ErrInvalidArgument)
	}
	if path.IsAbs(cgroupsPath) {
		return []candidate{{path: clean}}, nil
	}
	// runc takes it below its own cgroup, crun below the root.
	return []candidate{{path: clean, relative: true}, {path: clean}}, nil
}

// units lists the paths of the systemd unit that a runtime makes of "slice:prefix:name".
func units(cgroupsPath, id string) ([]string, error) {
	if cgroupsPath == "" {
		// The prefix is the runtime's own name.
		return []string{"/system.slice/runc-" + id + ".scope", "/system.slice/crun-" + id + ".scope"}, nil
	}
	f := strings.Split(cgroupsPath, ":")
	if len(f) != 3 || f[2] == "" || strings.Contains(f[1]+f[2], "/") {
		return nil, fmt.Errorf("systemd cgroup path %q is not slice:prefix:name: %w", cgroupsPath, errdefs.ErrInvalidArgument)
	}
	slice, prefix, name := f[0], f[1], f[2]
	if slice == "" {
		slice = "system.slice"
	}
	parent, err := expandSlice(slice)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".slice") {
		return []string{path.Join(parent, name)}, nil
	}
	if prefix != "" {
		name = prefix + "-" + name
	}
	return []string{path.Join(parent, name+".scope")}, nil
}

// expandSlice turns "a-b.slice" into "/a.slice/a-b.slice": systemd nests slices by their names (systemd.slice(5)).
func expandSlice(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || strings.Contains(name, "/") || name == "" {
		return "", fmt.Errorf("%q is not the name of a systemd slice: %w", slice, errdefs.ErrInvalidArgument)
	}
	if name == "-" {
		return "/", nil
	}
	full, prefix := "/", ""
	for _, part := range strings.Split(name, "-") {
		if part == "" {
			return "", fmt.Errorf("%q is not the name of a systemd slice: %w", slice, errdefs.ErrInvalidArgument)
		}
		full = path.Join(full, prefix+part+".slice")
		prefix += part + "-"
	}
	return full, nil
}

// existing is the group at candidate c, with only those directories that are there.
func (h *Host) existing(c candidate, own membership) (g Group, err error) {
	g.host = h
	if h.unified {
		base := h.v2.root
		if c.relative {
			base = path.Dir(own[""])
		}
		g.v2, err = h.placeAt("", h.v2, path.Join(base, c.path), own[""])
		return g, err
	}
	for _, name := range h.controllers() {
		base := h.v1[name].root
		if c.relative {
			base = own[name]
		}
		p, err := h.placeAt(name, h.v1[name], path.Join(base, c.path), own[name])
		if err != nil {
			return Group{}, err
		}
		if p.dir != "" {
			g.v1 = append(g.v1, p)
		}
	}
	if h.v2.dir != "" {
		base := h.v2.root
		if c.relative {
			base = own[""]
		}
		g.beside, err = h.placeAt("", h.v2, path.Join(base, c.path), own[""])
	}
	return g, err
}

// placeAt is the place at a path, the zero place if there is none.
func (h *Host) placeAt(controller string, m mount, p, own string) (place, error) {
	dir, ok := m.inside(p)
	if !ok {
		return place{}, nil
	}
	fd, err := errno.RetryValue(func() (int, error) { return h.sys.open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW) })
	switch {
	case err == nil:
	case gone(err), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG):
		return place{}, nil
	default:
		return place{}, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	h.sys.close(fd)
	return place{controller: controller, dir: dir, private: private(m, dir, own)}, nil
}
