// Package cgroup reads what the kernel says about a container's control group: where it is, what it uses, whether its
// memory ran out. It creates no cgroup and sets no limit, which is the OCI runtime's work, and kills nobody, which is the
// work of package children; to it a Group only names a directory.
//
// It reads the files itself. The reader of containerd/cgroups costs 1.6 MB of binary and 1.1 MB resident with what it
// imports (eBPF, D-Bus, systemd), its generated messages alone 0.5 MB once they are used; this costs neither, since
// a shim answers Stats with bytes that it can write as it reads.
package cgroup

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/errno"
	"github.com/larkshim/lark/internal/mountinfo"
)

// defaultRoot is where cgroups are mounted, on every distribution since 2013.
const defaultRoot = "/sys/fs/cgroup"

// Host is how cgroups are laid out on this machine. It is read once; a Host may be used by many goroutines.
type Host struct {
	sys  *system
	proc string
	// hugepages lists the sizes of huge pages that the machine has, in the words of the hugetlb controller's files.
	hugepages []string
	// v2 is the unified hierarchy's mount, its dir "" where there is none.
	v2 mount
	// v1 has the mount of each controller of version 1; of named hierarchies as "name=systemd".
	v1 map[string]mount
	// unified says that cgroup2 is what sits at the root: there may be a stray version 1 mount beside it (net_cls of a
	// VPN), which no runtime uses.
	unified bool

	oom inotifyWatcher
}

// mount is one hierarchy as mounted: the directory dir shows the cgroup root of the hierarchy, which is not "/" where
// this is a container that was given a part of it.
type mount struct {
	dir, root string
}

// NewHost reads the layout of this machine. It fails where /proc cannot be read; a machine without any cgroup mount is
// not an error but has no groups (errno.ErrMissing from Of and FromSpec).
func NewHost() (*Host, error) {
	return hostAt(kernel(), "/proc", defaultRoot, "/sys/kernel/mm/hugepages")
}

// hostAt is NewHost over any tree, for tests.
func hostAt(sys *system, proc, root, hugepages string) (*Host, error) {
	h := &Host{sys: sys, proc: proc, v1: make(map[string]mount)}
	table, err := sys.readFile(path.Join(proc, "self/mountinfo"))
	if err != nil {
		return nil, errno.Unexpected("reading the mount table", err)
	}
	for line := range bytes.Lines(table) {
		h.addMount(string(line))
	}
	h.unified = h.v2.dir != "" && (h.v2.dir == root || len(h.v1) == 0)
	h.hugepages = hugepageSizes(sys, hugepages)
	return h, nil
}

// Unified says that the machine uses cgroup version 2 alone.
func (h *Host) Unified() bool { return h.unified }

// addMount takes one line of /proc/self/mountinfo (proc_pid_mountinfo(5)). A later mount on the same place hides the
// earlier one, so the last line counts.
func (h *Host) addMount(line string) {
	before, after, ok := strings.Cut(line, " - ")
	if !ok {
		return
	}
	f, super := strings.Fields(before), strings.Fields(after)
	if len(f) < 5 || len(super) < 3 {
		return
	}
	m := mount{dir: mountinfo.Unescape(f[4]), root: mountinfo.Unescape(f[3])}
	if !path.IsAbs(m.dir) {
		return // no kernel writes that
	}
	switch super[0] {
	case "cgroup2":
		// Beside the real one there may be others, mounted by container tools for themselves: the shortest path is the
		// one that everybody uses.
		if h.v2.dir == "" || len(m.dir) <= len(h.v2.dir) {
			h.v2 = m
		}
	case "cgroup":
		for _, o := range strings.Split(super[2], ",") {
			if o == "rw" || o == "ro" || strings.HasPrefix(o, "release_agent=") {
				continue
			}
			if old, ok := h.v1[o]; !ok || len(m.dir) <= len(old.dir) {
				h.v1[o] = m
			}
		}
	}
}

// inside turns a path as /proc/PID/cgroup gives it into the directory that shows it, false if this mount does not. What
// lies outside of our cgroup namespace's root begins with "/.." (cgroup_namespaces(7)); wherever that stands it is none of
// this mount's.
func (m mount) inside(p string) (string, bool) {
	if m.dir == "" || !path.IsAbs(p) || slices.Contains(strings.Split(p, "/"), "..") {
		return "", false
	}
	if m.root != "/" {
		rest, ok := strings.CutPrefix(p, m.root)
		if !ok || rest != "" && rest[0] != '/' {
			return "", false
		}
		p = rest
	}
	return path.Join(m.dir, p), true
}

// membership is a parsed /proc/PID/cgroup: the path in each hierarchy, by controller; version 2 under "".
type membership map[string]string

// ownMembership reads the cgroups of this process. That they cannot be read says nothing about any other's.
func (h *Host) ownMembership() (membership, error) {
	m, err := h.membershipOf("self")
	return m, errno.Unexpected("", err)
}

// membershipOf reads the cgroups of a process. errno.ErrMissing if there is no such process.
func (h *Host) membershipOf(pid string) (membership, error) {
	b, err := h.sys.readFile(path.Join(h.proc, pid, "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("reading the cgroups of process %s: %w", pid, classed(err))
	}
	m := make(membership)
	for line := range bytes.Lines(b) {
		// hierarchy:controllers:path; the path may have colons of its own (cgroups(7)).
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("process %s: cgroup line %q has no three parts: %w", pid, line, errdefs.ErrInternal)
		}
		for _, c := range strings.Split(f[1], ",") {
			m[c] = f[2]
		}
	}
	return m, nil
}
