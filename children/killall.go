package children

// Kill-all: every process of a container's cgroup, without a call of the runtime. `runc kill --all` after init's death
// kills with runc 1.1.5 and nobody with 1.5.2, and it needs a fork.

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// KillAll kills every process in a cgroup and in those below it, frozen or not, and returns when none is left. cgroup is
// the absolute path of its directory: on cgroup v2, or in any v1 hierarchy with the same path in the freezer's. A
// directory that is not there holds nobody.
//
// InvalidArgument for a path that is no cgroup's; FailedPrecondition, and nobody was killed, for the root of a hierarchy
// or if this program is in the cgroup itself; else the cause of ctx, when it ends before all are gone. Their exits are
// seen by those who wait for them, or swept.
func (o *Owner) KillAll(ctx context.Context, cgroup string) error {
	if !filepath.IsAbs(cgroup) || filepath.Clean(cgroup) != cgroup {
		return fmt.Errorf("cgroup %q is no clean absolute path: %w", cgroup, errdefs.ErrInvalidArgument)
	}
	version, err := o.cgroupVersion(cgroup)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := o.mayKill(cgroup); err != nil {
		return err
	}
	if version == 2 {
		err = o.thawV2(cgroup)
	} else {
		err = o.thawV1(cgroup)
	}
	if err != nil { // those who are not frozen can be killed all the same
		o.log.Warn("thawing a cgroup", "cgroup", cgroup, "error", err)
	}
	return o.killUntilEmpty(ctx, cgroup, version)
}

// cgroupVersion asks the file system which hierarchy the directory belongs to.
func (o *Owner) cgroupVersion(cgroup string) (int, error) {
	var fs unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(cgroup, &fs) }); err != nil {
		return 0, classed(fmt.Sprintf("cgroup %q", cgroup), err)
	}
	switch fs.Type {
	case unix.CGROUP2_SUPER_MAGIC:
		return 2, nil
	case unix.CGROUP_SUPER_MAGIC:
		return 1, nil
	}
	return 0, fmt.Errorf("%q is no cgroup: %w", cgroup, errdefs.ErrInvalidArgument)
}

// mayKill refuses what can only be a mistake: the root of a hierarchy, and a cgroup in which we are.
func (o *Owner) mayKill(cgroup string) error {
	above, err := o.cgroupVersion(filepath.Dir(cgroup))
	if err != nil || above == 0 {
		return fmt.Errorf("cgroup %q is the root of a hierarchy: %w", cgroup, errdefs.ErrFailedPrecondition)
	}
	pids, err := o.cgroupProcs(cgroup)
	if err != nil {
		return classed(fmt.Sprintf("processes of cgroup %q", cgroup), err)
	}
	if slices.Contains(pids, o.self) {
		return fmt.Errorf("cgroup %q holds this program itself: %w", cgroup, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// killUntilEmpty kills and looks again, because a process may fork, or join, in the middle.
func (o *Owner) killUntilEmpty(ctx context.Context, cgroup string, version int) error {
	for pause := killAllPauseMin; ; pause = min(2*pause, killAllPauseMax) {
		pids, err := o.cgroupProcs(cgroup)
		if err == nil && len(pids) == 0 {
			return nil
		}
		if err == nil {
			err = o.killCgroup(cgroup, version, pids)
		}
		if err != nil {
			// Out of descriptors, say: what could be killed was. The next round may do better.
			o.log.Warn("killing a cgroup", "cgroup", cgroup, "error", err)
		}
		if !o.pause(ctx, pause) {
			return fmt.Errorf("cgroup %q is not empty yet: %w", cgroup, context.Cause(ctx))
		}
	}
}

// killCgroup kills once. cgroup.kill (Linux 5.14, v2 only) takes the whole tree in one step, forks included.
func (o *Owner) killCgroup(cgroup string, version int, pids []int) error {
	if version == 2 {
		err := retry(func() error { return o.sys.writeFile(cgroup+"/cgroup.kill", "1") })
		if err == nil {
			return nil
		}
		// An older kernel, or a cgroup of threads: one by one.
	}
	var failed error
	for batch := range slices.Chunk(pids, killAllBatch) {
		if err := o.killBatch(cgroup, batch); err != nil {
			failed = err
		}
	}
	return failed
}

// killBatch holds processes by pidfd, sees which of them are still in the cgroup, and kills these. A number that is in
// the list after it was opened belongs to the process behind the pidfd, or that process is dead: no stranger is hit.
func (o *Owner) killBatch(cgroup string, pids []int) error {
	fds := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	var failed error
	for _, pid := range pids {
		if pid <= 1 || pid == o.self { // 0 stands for a process of a pid namespace that we cannot see
			continue
		}
		fd, err := o.openChild(pid)
		switch {
		case err == nil:
			fds[pid] = fd
		case !errors.Is(err, ErrNotChild):
			failed = err
		}
	}
	still, err := o.cgroupProcs(cgroup)
	if err != nil {
		return err
	}
	for _, pid := range still {
		fd, ok := fds[pid]
		if !ok {
			continue
		}
		err := retry(func() error { return o.sys.pidfdSignal(fd, unix.SIGKILL) })
		if err != nil && !errors.Is(err, unix.ESRCH) {
			failed = err
		}
	}
	return failed
}

// cgroupProcs lists the processes of a cgroup and all below it. Zombies are in none.
func (o *Owner) cgroupProcs(cgroup string) ([]int, error) {
	var pids []int
	err := o.walkCgroup(cgroup, func(dir string) error {
		text, err := readAll(o.sys, dir+"/cgroup.procs", nil)
		if err != nil {
			// ENODEV: removed while it was open. EOPNOTSUPP: a cgroup of threads, whose processes are listed above it.
			if gone(err) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
				return nil
			}
			return err
		}
		pids, err = parsePids(text, pids)
		return err
	})
	return pids, err
}

// walkCgroup calls do for a cgroup and for all below it, from the top down.
func (o *Owner) walkCgroup(dir string, do func(dir string) error) error {
	if err := do(dir); err != nil {
		return err
	}
	var names []string
	err := retry(func() (err error) {
		names, err = o.sys.subDirs(dir)
		return err
	})
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := o.walkCgroup(dir+"/"+name, do); err != nil {
			return err
		}
	}
	return nil
}

// Thaw thaws a cgroup and all below it, so that a SIGKILL that its processes were
// sent reaches them: on cgroup v1 a frozen process takes none. On v2 it does
// nothing, since it does there. cgroup is as for KillAll.
func (o *Owner) Thaw(cgroup string) error {
	version, err := o.cgroupVersion(cgroup)
	if errors.Is(err, unix.ENOENT) || err == nil && version == 2 {
		return nil
	}
	if err != nil {
		return err
	}
	if err := o.thawV1(cgroup); err != nil {
		return classed(fmt.Sprintf("thaw cgroup %q", cgroup), err)
	}
	return nil
}

// thawV2 thaws a cgroup and all below it. SIGKILL reaches the frozen of v2 as it is (cgroup-v2.rst, cgroup.freeze); a
// thawed one only dies sooner on early kernels.
func (o *Owner) thawV2(cgroup string) error {
	return o.walkCgroup(cgroup, func(dir string) error { return o.thaw(dir+"/cgroup.freeze", "0") })
}

// thawV1 thaws the cgroup of the same path in the freezer's hierarchy, and all below it. On v1 nothing reaches a frozen
// process, SIGKILL included, until it is thawed (freezer-subsystem.rst).
func (o *Owner) thawV1(cgroup string) error {
	text, err := readAll(o.sys, "/proc/self/mountinfo", nil)
	if err != nil {
		return err
	}
	dir, ok := freezerOf(cgroup, parseCgroupMounts(string(text)))
	if !ok {
		return nil // nobody can be frozen
	}
	return o.walkCgroup(dir, func(dir string) error { return o.thaw(dir+"/freezer.state", "THAWED") })
}

// thaw writes to one control file, which may not be there: no freezer, no cgroup any more, or a root.
func (o *Owner) thaw(path, value string) error {
	err := retry(func() error { return o.sys.writeFile(path, value) })
	if gone(err) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// cgroupMount is where a v1 hierarchy is mounted, or a part of it.
type cgroupMount struct {
	root    string // the cgroup that is mounted
	point   string
	freezer bool
}

// parseCgroupMounts finds the v1 hierarchies in /proc/self/mountinfo (proc(5)): "id parent dev root point options ... -
// type source options", where blanks are written as octal.
func parseCgroupMounts(mountinfo string) []cgroupMount {
	var mounts []cgroupMount
	for line := range strings.Lines(mountinfo) {
		front, back, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields, kind := strings.Fields(front), strings.Fields(back)
		if !ok || len(fields) < 5 || len(kind) < 3 || kind[0] != "cgroup" {
			continue
		}
		mounts = append(mounts, cgroupMount{
			root: unescape(fields[3]), point: unescape(fields[4]),
			freezer: slices.Contains(strings.Split(kind[2], ","), "freezer"),
		})
	}
	return mounts
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// freezerOf gives the directory in the freezer's hierarchy with the same path as a directory in another one.
func freezerOf(dir string, mounts []cgroupMount) (string, bool) {
	var mine *cgroupMount
	for i, m := range mounts {
		if (dir == m.point || strings.HasPrefix(dir, m.point+"/")) && (mine == nil || len(m.point) > len(mine.point)) {
			mine = &mounts[i]
		}
	}
	if mine == nil {
		return "", false
	}
	path := filepath.Join(mine.root, strings.TrimPrefix(dir, mine.point))
	for _, m := range mounts {
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(m.root, "/")+"/")
		if m.freezer && ok {
			return filepath.Join(m.point, rest), true
		}
	}
	return "", false
}
