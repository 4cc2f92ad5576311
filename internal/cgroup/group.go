package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// Group is one container's control group: a directory in the unified hierarchy, or one in each hierarchy of version 1.
// The zero Group belongs to nobody: it has no directories and every method that reads answers errno.ErrMissing. A Group names
// directories, it does not hold them: the runtime removes them at delete. It may be copied and used by many goroutines.
type Group struct {
	host *Host
	// v2 is set on a unified host only. On a hybrid one runtimes use version 1 and not all of them join version 2.
	v2 place
	v1 []place
	// beside is the group's directory in version 2 on a hybrid host, if it has one there:
	// runc makes it, and one that is killed leaves it.
	beside place
}

// place is the group's path in one hierarchy.
type place struct {
	controller string // "" for version 2
	dir        string
	// private says that killing all in it cannot reach the shim: it is neither the root of a hierarchy nor the shim's
	// own cgroup nor above that. A container whose runtime was told to make no cgroup stays in the shim's.
	private bool
}

// killOrder is the order in which hierarchies of version 1 are asked for the container's processes. runc and crun join
// all that are mounted; pids and devices are there on every kernel that runs containers.
var killOrder = []string{"pids", "devices", "freezer", "memory", "cpu", "cpuacct", "cpuset", "name=systemd"}

// deleted is what the kernel appends to the path of a version 2 cgroup that was
// removed under a zombie (cgroups(7)). A process that is alive is in none such:
// the name of its cgroup may end in this.
const deleted = " (deleted)"

// Of finds the cgroup of a living process from /proc/PID/cgroup.
//
// Errors: errno.ErrMissing if the process is gone, or is a zombie that no longer names its cgroup (a dead process is moved to
// the root of each version 1 hierarchy at once, of version 2 only when it is reaped); use FromSpec then.
func (h *Host) Of(pid int) (Group, error) {
	if pid <= 0 {
		return Group{}, fmt.Errorf("pid %d: %w", pid, errdefs.ErrInvalidArgument)
	}
	id := strconv.Itoa(pid)
	m, err := h.membershipOf(id)
	if err != nil {
		return Group{}, err
	}
	if name, ok := strings.CutSuffix(m[""], deleted); ok && !h.alive(id) {
		if dir, ok := h.v2.inside(m[""]); ok && (Group{host: h, v2: place{dir: dir, private: true}}).Exists() {
			return Group{}, errno.Missing(fmt.Sprintf("process %d has exited, and its cgroup is %q or was %q", pid, m[""], name))
		}
		m[""] = name
	}
	g, err := h.group(m)
	if err != nil {
		return Group{}, err
	}
	// Read in this order: a process that is alive now was alive when its membership was read.
	if len(g.private()) == 0 && !h.alive(id) {
		return Group{}, errno.Missing(fmt.Sprintf("process %d has exited and left its cgroup", pid))
	}
	return g, nil
}

// Locate is Of, or where init is dead already, FromSpec. It is what a caller who has just created a container wants. Like
// FromSpec it says errno.ErrMissing only of what it has looked for.
func (h *Host) Locate(pid int, cgroupsPath, id string, systemd bool) (Group, error) {
	g, err := h.Of(pid)
	if err == nil {
		return g, nil
	}
	g, specErr := h.FromSpec(cgroupsPath, id, systemd)
	switch {
	case specErr == nil:
		return g, nil
	case !errno.IsMissing(specErr):
		return Group{}, specErr
	}
	return Group{}, err
}

// group makes a Group of the paths in m that this mount namespace shows.
func (h *Host) group(m membership) (Group, error) {
	own, err := h.ownMembership()
	if err != nil {
		return Group{}, err
	}
	g := Group{host: h}
	if h.unified {
		if dir, ok := h.v2.inside(m[""]); ok {
			g.v2 = place{dir: dir, private: private(h.v2, dir, own[""])}
			return g, nil
		}
		return Group{}, errno.Missing(fmt.Sprintf("cgroup %q is not below %q", m[""], h.v2.root))
	}
	for _, c := range h.controllers() {
		if dir, ok := h.v1[c].inside(m[c]); ok {
			g.v1 = append(g.v1, place{controller: c, dir: dir, private: private(h.v1[c], dir, own[c])})
		}
	}
	if len(g.v1) == 0 {
		return Group{}, errno.Missing("no cgroup hierarchy is mounted here")
	}
	return g, nil
}

// private says whether dir is safe to be emptied by killing, given the path of the shim's own cgroup.
func private(m mount, dir, own string) bool {
	if dir == m.dir {
		return false
	}
	mine, ok := m.inside(own)
	return !ok || mine != dir && !strings.HasPrefix(mine, dir+"/")
}

// controllers lists the mounted controllers of version 1 in a stable order.
func (h *Host) controllers() []string {
	names := make([]string, 0, len(h.v1))
	for c := range h.v1 {
		names = append(names, c)
	}
	slices.Sort(names)
	return names
}

// alive says whether a process is there and not a zombie (state Z or X in proc_pid_stat(5), after the last parenthesis,
// as the name before it may hold any byte).
func (h *Host) alive(pid string) bool {
	b, err := h.sys.readFile(path.Join(h.proc, pid, "stat"))
	if err != nil {
		return false
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	return len(f) > 0 && f[0] != "Z" && f[0] != "X"
}

// Unified says whether the group is one of version 2.
func (g Group) Unified() bool { return g.v2.dir != "" }

// IsZero says that this is no group at all.
func (g Group) IsZero() bool { return g.host == nil }

// Dir is the absolute directory in the hierarchy of a controller ("memory", "pids"), "" if that is not mounted. On a
// unified host it is the same for each.
func (g Group) Dir(controller string) string {
	if g.Unified() {
		return g.v2.dir
	}
	for _, p := range g.v1 {
		if p.controller == controller {
			return p.dir
		}
	}
	return ""
}

// KillDir is the directory to give to children.Owner.KillAll, "" where there is none in which only the container's
// processes can be: never the root of a hierarchy, never a group that the shim itself is in.
func (g Group) KillDir() string {
	if g.v2.private {
		return g.v2.dir
	}
	for _, c := range killOrder {
		for _, p := range g.v1 {
			if p.controller == c && p.private {
				return p.dir
			}
		}
	}
	if g.beside.private {
		return g.beside.dir
	}
	return ""
}

// String is for logs.
func (g Group) String() string {
	if g.Unified() {
		return g.v2.dir
	}
	if dir := g.KillDir(); dir != "" {
		return dir
	}
	return "no cgroup of its own"
}

// private lists the group's own directories, each once (cpu and cpuacct are often one mount).
func (g Group) private() []string {
	var dirs []string
	if g.v2.private {
		dirs = append(dirs, g.v2.dir)
	}
	for _, p := range g.v1 {
		if p.private && !slices.Contains(dirs, p.dir) {
			dirs = append(dirs, p.dir)
		}
	}
	if g.beside.private {
		dirs = append(dirs, g.beside.dir)
	}
	return dirs
}

// Exists says whether any directory of the group is still there.
func (g Group) Exists() bool {
	for _, dir := range g.private() {
		fd, err := errno.RetryValue(func() (int, error) { return g.host.sys.open(dir, unix.O_PATH|unix.O_DIRECTORY) })
		if err == nil {
			g.host.sys.close(fd)
			return true
		}
	}
	return false
}

// Remove removes what is left of the group once it is empty: after a crash, a runtime that has lost its state removes
// nothing. It kills nobody, follows no symlink and may be repeated.
//
// Errors: Unavailable while a process, even a zombie, is still in it.
func (g Group) Remove() error {
	var errs []error
	for _, dir := range g.private() {
		errs = append(errs, g.host.removeTree(dir))
	}
	return errors.Join(errs...)
}

// removeTree removes a cgroup and those below it, deepest first.
func (h *Host) removeTree(dir string) error {
	below, err := h.groupsBelow(dir)
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(append([]string{dir}, below...)) {
		err := errno.Retry(func() error { return h.sys.rmdir(d) })
		if err != nil && !gone(err) {
			return fmt.Errorf("removing cgroup %s: %w", d, classed(err))
		}
	}
	return nil
}

// groupsBelow lists the cgroups below dir, parents before their children, at most maxGroups of them.
func (h *Host) groupsBelow(dir string) ([]string, error) {
	type level struct {
		dir   string
		depth int
	}
	var found []string
	for todo := []level{{dir, 0}}; len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		entries, err := h.sys.readDir(at.dir)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing cgroup %s: %w", at.dir, classed(err))
		}
		for _, e := range entries {
			if !e.IsDir() {
				continue
			}
			if at.depth == maxDepth || len(found) == maxGroups {
				return found, nil
			}
			sub := path.Join(at.dir, e.Name())
			found = append(found, sub)
			todo = append(todo, level{sub, at.depth + 1})
		}
	}
	return found, nil
}
