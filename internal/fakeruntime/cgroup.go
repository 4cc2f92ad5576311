package fakeruntime

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// cgroupDirs are the directories of a container's cgroup on this machine.
func cgroupDirs(path string) []string {
	const root = "/sys/fs/cgroup"
	path = filepath.Clean("/" + path)
	var st unix.Statfs_t
	if unix.Statfs(root, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{root + path}
	}
	var dirs []string
	for _, c := range []string{"memory", "pids", "devices", "freezer"} {
		if _, err := os.Stat(filepath.Join(root, c)); err == nil {
			dirs = append(dirs, filepath.Join(root, c)+path)
		}
	}
	return dirs
}

// joinCgroup puts a process into the group, which is made if need be.
func joinCgroup(path string, pid int) error {
	for _, dir := range cgroupDirs(path) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroup removes an empty group. One that is not is left, as runc leaves it.
func removeCgroup(path string) {
	for _, dir := range cgroupDirs(path) {
		for errors.Is(unix.Rmdir(dir), unix.EINTR) {
		}
	}
}
