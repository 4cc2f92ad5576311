package shimclient

// The container's cgroup, which a killed runtime call may leave behind.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where distributions mount cgroups: one cgroup2, or the v1 hierarchies
// as directories of a tmpfs.
const cgroupRoot = "/sys/fs/cgroup"

// ClearCgroup kills what is left in a container's cgroup, named as its specification
// names it, and removes it.
func ClearCgroup(ctx context.Context, cgroup string) error { return clearCgroup(ctx, cgroup) }

// clearCgroup kills what is left in the cgroup and removes it from every hierarchy. An
// absent one is the normal case and costs a few stat calls.
func clearCgroup(ctx context.Context, cgroup string) error {
	return clearCgroupBelow(ctx, cgroupRoot, cgroup)
}

func clearCgroupBelow(ctx context.Context, root, cgroup string) error {
	if cgroup == "" || cgroup == "/" || strings.Contains(cgroup, "..") {
		return nil
	}
	var errs []error
	for _, dir := range cgroupDirs(root, cgroup) {
		// Where no cgroup2 is mounted crun writes the same names into plain directories.
		// Nobody takes a pid out of a plain file: it may be anybody's by now.
		if !onCgroupFS(dir) {
			continue
		}
		thaw(dir)
		errs = append(errs, killHeld(ctx, func() []int { return members(dir) }, func(pid int) bool { return slices.Contains(members(dir), pid) }))
		errs = append(errs, removeCgroup(ctx, dir))
	}
	return errors.Join(errs...)
}

// cgroupDirs lists the directories in which the cgroup exists.
func cgroupDirs(root, cgroup string) []string {
	candidates := []string{filepath.Join(root, cgroup)}
	if entries, err := os.ReadDir(root); err == nil {
		for _, e := range entries {
			candidates = append(candidates, filepath.Join(root, e.Name(), cgroup))
		}
	}
	var dirs []string
	for _, c := range candidates {
		// Links (cpu -> cpu,cpuacct) would name one directory twice.
		real, err := filepath.EvalSymlinks(c)
		if err == nil && !slices.Contains(dirs, real) {
			dirs = append(dirs, real)
		}
	}
	return dirs
}

// onCgroupFS is true for a directory that the kernel keeps.
func onCgroupFS(dir string) bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false // removed while we looked
	}
	return fs.Type == unix.CGROUP_SUPER_MAGIC || fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// thaw wakes a frozen cgroup: a frozen process does not die of SIGKILL under v1. The
// file that does not exist is of the other version.
func thaw(dir string) {
	os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
}

// members lists the pids in the cgroup and in those below it.
func members(dir string) []int {
	var pids []int
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != "cgroup.procs" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil // removed while we looked
		}
		for line := range strings.Lines(string(text)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// removeCgroup removes the directory and those below it. The kernel refuses with EBUSY
// for some milliseconds after the last member's death.
func removeCgroup(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	for {
		var dirs []string
		filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		slices.Reverse(dirs)
		var last error
		for _, d := range dirs {
			if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
				last = err
			}
		}
		if last == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("remove the container's cgroup: %w", last)
		}
		pause(ctx, removeRetry)
	}
}
