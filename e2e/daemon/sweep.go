package daemon

// What belongs to a daemon, by its tag: processes, mounts, cgroups, sockets and
// the OCI runtime's state.

import (
	"bytes"
	"context"
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
	// sweepBound is how long killed processes may take to be gone.
	sweepBound = time.Minute
	sweepEvery = 20 * time.Millisecond
	// socketDir is where containerd before 2.3 lets its shims listen.
	socketDir = "/run/containerd/s"
)

// Process of a daemon, as Processes found it.
type Proc struct {
	Pid  int
	Argv []string
	// Shim is true for a process that was started with the daemon's -address.
	Shim bool
}

// String is the pid and the command line.
func (p Proc) String() string { return fmt.Sprintf("pid %d: %q", p.Pid, p.Argv) }

// Processes lists every process that belongs to the daemon, the daemon itself
// excepted: those with its tag in their environment or command line, and those
// in a cgroup under its tag. Zombies are among them, by their cgroup.
func (d *Daemon) Processes() []Proc {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []Proc
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || (d.running() && pid == d.Pid()) {
			continue
		}
		if argv, ours := d.owns(pid); ours {
			shim := slices.Contains(argv, "-address") && slices.Contains(argv, d.Address())
			found = append(found, Proc{Pid: pid, Argv: argv, Shim: shim})
		}
	}
	return found
}

func (d *Daemon) running() bool {
	if d.cmd == nil {
		return false
	}
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// owns reads what /proc says of a process. A process may be gone in between;
// then it is nobody's.
func (d *Daemon) owns(pid int) (argv []string, ours bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	cmdline, _ := os.ReadFile(dir + "/cmdline")
	environ, _ := os.ReadFile(dir + "/environ")
	cgroups, _ := os.ReadFile(dir + "/cgroup")
	tag := []byte(d.Tag())
	argv = strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
	ours = bytes.Contains(environ, append([]byte(tagEnv+"="), tag...)) ||
		bytes.Contains(cmdline, append([]byte("/tmp/"), tag...)) ||
		bytes.Contains(cgroups, append([]byte(":/"), append(tag, '/')...))
	return argv, ours
}

// Shims lists the daemon's serving shims.
func (d *Daemon) Shims() []Proc {
	return slices.DeleteFunc(d.Processes(), func(p Proc) bool { return !p.Shim })
}

// Shim finds the serving shim that was started for id.
func (d *Daemon) Shim(id string) (Proc, bool) {
	for _, p := range d.Shims() {
		if i := slices.Index(p.Argv, "-id"); i >= 0 && i+1 < len(p.Argv) && p.Argv[i+1] == id && p.Argv[len(p.Argv)-1] != "start" {
			return p, true
		}
	}
	return Proc{}, false
}

// FDs lists what the open file descriptors of a process point to, sorted.
func FDs(pid int) ([]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var fds []string
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			fds = append(fds, target)
		}
	}
	slices.Sort(fds)
	return fds, nil
}

// Leftovers names, in words, what belongs to the daemon apart from itself:
// processes, mounts, cgroups, shim sockets, bundles, runtime state. A test
// that has deleted all its containers expects none.
func (d *Daemon) Leftovers() []string {
	var left []string
	for _, p := range d.Processes() {
		left = append(left, "process "+p.String())
	}
	for _, m := range d.Mounts() {
		left = append(left, "mount "+m)
	}
	for _, c := range d.Cgroups() {
		left = append(left, "cgroup "+c)
	}
	for _, pattern := range []string{"/state/s/*", "/runc/*/*", "/state/io.containerd.runtime.v2.task/*/*"} {
		matches, _ := filepath.Glob(d.dir + pattern)
		for _, m := range matches {
			left = append(left, "file "+m)
		}
	}
	for _, s := range d.sockets() {
		left = append(left, "socket "+s)
	}
	return left
}

// NothingLeft waits, within ctx, until Leftovers is empty, and returns what is
// left otherwise. Shims end a moment after the last delete was answered.
func (d *Daemon) NothingLeft(ctx context.Context) []string {
	for {
		left := d.Leftovers()
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return left
		case <-time.After(sweepEvery):
		}
	}
}

// Mounts lists the mount points under the daemon's directory.
func (d *Daemon) Mounts() []string {
	var ms []string
	for _, m := range mounts() {
		if strings.HasPrefix(m.target, d.dir+"/") {
			ms = append(ms, m.target)
		}
	}
	return ms
}

// Cgroups lists the cgroups of the daemon's containers, deepest first.
func (d *Daemon) Cgroups() []string {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/" + d.Tag())
	roots = append(roots, "/sys/fs/cgroup/"+d.Tag())
	var found []string
	for _, root := range roots {
		_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() && path != root {
				found = append(found, path)
			}
			return nil
		})
	}
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) })
	return found
}

// sweep kills and removes all that Leftovers can name, and the directory.
func (d *Daemon) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sweepBound)
	defer cancel()
	errs := []error{d.killAll(ctx)}
	for _, m := range slices.Backward(d.Mounts()) {
		errs = append(errs, unix.Unmount(m, unix.MNT_DETACH))
	}
	for _, s := range d.sockets() {
		errs = append(errs, os.Remove(s))
	}
	errs = append(errs, d.removeCgroups(ctx))
	if left := d.Mounts(); len(left) > 0 {
		// Never delete through a mount.
		return errors.Join(append(errs, fmt.Errorf("still mounted: %q", left))...)
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

func (d *Daemon) killAll(ctx context.Context) error {
	for {
		ps := d.Processes()
		if len(ps) == 0 {
			return nil
		}
		for _, p := range ps {
			d.KillOne(p.Pid)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot be killed: %v", ps)
		case <-time.After(sweepEvery):
		}
	}
}

// KillOne kills a process of the daemon, and no other: it goes through a pidfd,
// having looked again whose process it is, for the pid may have been given away
// since it was listed.
func (d *Daemon) KillOne(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if _, ours := d.owns(pid); ours {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// removeCgroups retries: a cgroup stays busy until its last zombie is reaped.
func (d *Daemon) removeCgroups(ctx context.Context) error {
	for {
		for _, c := range d.Cgroups() {
			_ = unix.Rmdir(c)
		}
		left := d.Cgroups()
		if len(left) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cgroups cannot be removed: %q", left)
		case <-time.After(sweepEvery):
		}
	}
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/" + d.Tag())
	for _, root := range append(roots, "/sys/fs/cgroup/"+d.Tag()) {
		_ = unix.Rmdir(root)
	}
	return nil
}
