package bench

// Cgroups of both versions side by side ("hybrid"). crun refuses such machines, where the
// others take the v1 controllers and leave the cgroup2 mount alone. So that crun can be
// measured there, the whole run goes into a mount namespace without the cgroup2 mount: all
// columns and all runtimes, since what one has all must have.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/mountinfo"
)

// ErrHybrid: a runtime refuses this machine's cgroups, and the cgroup2 mount cannot be
// taken away.
var ErrHybrid = errors.New("crun refuses cgroups of both versions side by side")

// Suit makes the machine one on which all runtimes of the Config work. Where that takes a
// mount namespace of its own, the program is executed again in it, with the arguments and
// under the pid that it has, and Suit does not return.
func Suit(cfg Config) error {
	if !slices.ContainsFunc(cfg.Runtimes, isCrun) {
		return nil
	}
	mounts, err := readCgroupMounts()
	if err != nil || !mounts.hybrid() {
		return err
	}
	if err := hide(mounts.v2); err != nil {
		return fmt.Errorf("%w; hide the cgroup2 mount: %w", ErrHybrid, err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("execute %s again: %w", self, unix.Exec(self, os.Args, os.Environ()))
}

// isCrun goes by the program's name, whatever the user calls it.
func isCrun(rt Runtime) bool { return strings.HasPrefix(filepath.Base(rt.Path), "crun") }

// hide takes mounts away for the calling thread and what it executes. The thread is never
// unlocked: no other goroutine may find itself in its namespace.
func hide(points []string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, p := range slices.Backward(points) { // the last one mounted lies on top
		if err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
		// crun makes its directories and files there all the same. They go with this
		// mount; without it they would stay in the tmpfs that all namespaces share.
		if err := unix.Mount("lark-bench", p, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
			return fmt.Errorf("cover %s: %w", p, err)
		}
	}
	left, err := readCgroupMounts()
	if err == nil && left.hybrid() {
		// Executed again, the program would come here again.
		err = fmt.Errorf("still mounted: %v", left.v2)
	}
	return err
}

// cgroupMounts is what a mount table says of cgroups.
type cgroupMounts struct {
	v1 bool     // some controller is mounted
	v2 []string // mount points of cgroup2, oldest first
}

// readCgroupMounts reads the calling thread's mount table.
func readCgroupMounts() (cgroupMounts, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	return parseCgroupMounts(string(text)), err
}

func parseCgroupMounts(table string) cgroupMounts {
	const pointField = 4
	var m cgroupMounts
	for line := range strings.Lines(table) {
		mount, super, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(mount), strings.Fields(super)
		if len(fields) <= pointField || len(kind) == 0 {
			continue
		}
		switch kind[0] {
		case "cgroup":
			m.v1 = true
		case "cgroup2":
			m.v2 = append(m.v2, mountinfo.Unescape(fields[pointField]))
		}
	}
	return m
}

func (m cgroupMounts) hybrid() bool { return m.v1 && len(m.v2) > 0 }

// String is how the machine is described.
func (m cgroupMounts) String() string {
	switch {
	case m.hybrid():
		return "cgroup v1 and v2"
	case m.v1:
		return "cgroup v1"
	case len(m.v2) > 0:
		return "cgroup v2"
	}
	return "no cgroups"
}
