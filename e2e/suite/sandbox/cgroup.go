package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// cgroupPrefix, with the pid of the process that made them, names the cgroups of a sandbox.
	cgroupPrefix = "lark-sandbox-"
	// emptyWithin bounds how long killed processes may take to leave their cgroups.
	emptyWithin = 20 * time.Second
	emptyPoll   = 50 * time.Millisecond
)

// makeCgroups makes a cgroup in every mounted hierarchy and returns their directories. In a v1 hierarchy it lies below the
// caller's own cgroup, so that the caller's limits hold; in v2 at the root, because a cgroup that has processes
// may not hand controllers down and the root alone is exempt (cgroups(7), "no internal processes").
func makeCgroups() ([]string, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	own, err := ownCgroups()
	if err != nil {
		return nil, err
	}
	name := cgroupPrefix + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	var made []string
	for _, mount := range mounts {
		parent := mount.Path
		if mount.Type == "cgroup" {
			// A bind mount of a part of the hierarchy shows the caller's cgroup relative to that part.
			parent = filepath.Join(mount.Path, strings.TrimPrefix(own[mount.controllers()], strings.TrimSuffix(mount.Root, "/")))
		}
		sweep(parent)
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("cgroup: %w", err), removeCgroups(made))
		}
		made = append(made, dir)
		if err := prepare(mount, dir); err != nil {
			return nil, errors.Join(fmt.Errorf("cgroup %s: %w", dir, err), removeCgroups(made))
		}
	}
	return made, nil
}

// prepare makes a new cgroup fit to hold processes.
func prepare(mount mountpoint, dir string) error {
	if mount.Type != "cgroup" || !slices.Contains(strings.Split(mount.Options, ","), "cpuset") {
		return nil
	}
	// cpuset of v1 refuses processes until both are set (cpuset(7)).
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		inherited, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), inherited, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what a sandbox left in parent whose maker was killed: the kernel has ended its processes.
func sweep(parent string) {
	left, err := filepath.Glob(filepath.Join(parent, cgroupPrefix+"*"))
	if err != nil {
		return // only a malformed pattern, and this one is not
	}
	for _, dir := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintln(os.Stderr, "sandbox: removing", dir, "left by", pid, removeTree(dir))
		}
	}
}

// enterCgroups moves this process. Writing 0 means oneself, in whichever pid namespace.
func enterCgroups(dirs []string) error {
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	return nil
}

// mountCgroups mounts every hierarchy again where it was: in a new cgroup namespace a fresh mount shows the sandbox's own
// cgroup as the root.
func mountCgroups() error {
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	if len(mounts) == 1 && mounts[0].Type == "cgroup2" {
		if err := unix.Mount("cgroup2", mounts[0].Path, "cgroup2", cgroupMountFlags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", mounts[0].Path, err)
		}
		return delegate(mounts[0].Path)
	}
	if err := unix.Mount("tmpfs", "/sys/fs/cgroup", "tmpfs", cgroupMountFlags, "mode=0755"); err != nil {
		return fmt.Errorf("mount /sys/fs/cgroup: %w", err)
	}
	for _, mount := range mounts {
		if err := os.MkdirAll(mount.Path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(mount.Type, mount.Path, mount.Type, cgroupMountFlags, mount.controllers()); err != nil {
			return fmt.Errorf("mount %s (%s): %w", mount.Path, mount.controllers(), err)
		}
	}
	return nil
}

const cgroupMountFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// delegate moves the sandbox's processes out of its v2 root, into a leaf, so that the root may hand its controllers to the
// cgroups of containers.
func delegate(root string) error {
	leaf := filepath.Join(root, "tests")
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	pids, err := os.ReadFile(filepath.Join(root, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(pids)) {
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(pid), 0o644); err != nil {
			return err
		}
	}
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("hand down %s: %w", controller, err)
		}
	}
	return nil
}

// removeCgroups removes the trees, after their last processes, which the kernel is about to end, have left.
func removeCgroups(dirs []string) error {
	var failed []error
	for _, dir := range dirs {
		deadline := time.Now().Add(emptyWithin)
		err := removeTree(dir)
		for err != nil && time.Now().Before(deadline) {
			time.Sleep(emptyPoll) // there is no event for "may be removed now" on v1
			err = removeTree(dir)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("cgroup left behind: %w", err))
		}
	}
	return errors.Join(failed...)
}

// removeTree removes cgroups from the leaves up. The files in them go with them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// controllers are the mount options that name a v1 hierarchy, in the spelling of /proc/self/cgroup.
func (m mountpoint) controllers() string {
	if m.Type != "cgroup" {
		return ""
	}
	var names []string
	for option := range strings.SplitSeq(m.Options, ",") {
		switch option {
		case "rw", "ro", "xattr", "clone_children", "noprefix":
		default:
			if !strings.HasPrefix(option, "release_agent=") {
				names = append(names, option)
			}
		}
	}
	return strings.Join(names, ",")
}

func cgroupMounts() ([]mountpoint, error) {
	mounts, err := mountpoints()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var found []mountpoint
	for _, mount := range mounts {
		if !strings.HasPrefix(mount.Type, "cgroup") || seen[mount.Path] || !strings.HasPrefix(mount.Path+"/", "/sys/fs/cgroup/") {
			continue
		}
		seen[mount.Path] = true
		found = append(found, mount)
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted below /sys/fs/cgroup")
	}
	return found, nil
}

// ownCgroups maps the controllers of each hierarchy to this process's cgroup in it.
func ownCgroups() (map[string]string, error) {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for line := range bytes.Lines(content) {
		fields := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(fields) != 3 {
			return nil, fmt.Errorf("/proc/self/cgroup: %q", line)
		}
		own[fields[1]] = fields[2]
	}
	return own, nil
}
