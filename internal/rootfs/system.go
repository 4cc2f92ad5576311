package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
	"github.com/larkshim/lark/internal/mountinfo"
)

// system is every way in which this package reaches the kernel, so that a test can let each of them fail.
type system struct {
	openat   func(dir int, name string, flags int) (int, error)
	fstat    func(fd int, st *unix.Stat_t) error
	close    func(fd int) error
	mkdirat  func(dir int, name string, mode uint32) error
	chmodat  func(dir int, name string, mode uint32) error
	rmdirat  func(dir int, name string) error
	readlink func(path string) (string, error)
	mount    func(source, target, fstype string, flags uintptr, data string) error
	unmount  func(target string, flags int) error
	openTree func(fd int, flags uint) (int, error)
	setattr  func(fd int, flags uint, attr *unix.MountAttr) error
	move     func(fd int, toDir int, to string) error
	table    func() ([]byte, error)
}

func kernel() *system {
	return &system{
		openat: func(dir int, name string, flags int) (int, error) {
			return errno.RetryValue(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0) })
		},
		fstat:    unix.Fstat,
		close:    unix.Close,
		mkdirat:  unix.Mkdirat,
		chmodat:  func(dir int, name string, mode uint32) error { return unix.Fchmodat(dir, name, mode, 0) },
		rmdirat:  func(dir int, name string) error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) },
		readlink: os.Readlink,
		mount:    unix.Mount,
		unmount:  unix.Unmount,
		openTree: func(fd int, flags uint) (int, error) {
			return unix.OpenTree(fd, "", flags|unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLOEXEC)
		},
		setattr: func(fd int, flags uint, attr *unix.MountAttr) error {
			return unix.MountSetattr(fd, "", flags|unix.AT_EMPTY_PATH, attr)
		},
		move: func(fd, toDir int, to string) error {
			return unix.MoveMount(fd, "", toDir, to, unix.MOVE_MOUNT_F_EMPTY_PATH)
		},
		table: readTable,
	}
}

func readTable() ([]byte, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTable))
	if err == nil && len(b) == maxTable {
		return nil, fmt.Errorf("the mount table is longer than %d bytes: %w", maxTable, errdefs.ErrResourceExhausted)
	}
	return b, err
}

// mountPoints lists the mount points that begin with prefix, without it, in the order in which they were mounted.
func (s *system) mountPoints(prefix string) ([]string, error) {
	table, err := s.table()
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", classed(err))
	}
	var found []string
	for line := range bytes.Lines(table) {
		// id parent major:minor root mount-point ..., proc_pid_mountinfo(5)
		f := bytes.SplitN(line, []byte(" "), 6)
		if len(f) < 6 {
			continue
		}
		if p, ok := strings.CutPrefix(mountinfo.Unescape(string(f[4])), prefix); ok {
			found = append(found, p)
		}
	}
	return found, nil
}

// unmount unmounts the topmost mount at the place and says whether there was one. A mount in use is tried again for
// busyTotal and then detached.
func (p place) unmount() (mounted bool, err error) {
	wait := busyFirst
	for waited := time.Duration(0); ; waited += wait {
		flags := unix.UMOUNT_NOFOLLOW
		if waited >= busyTotal {
			flags |= unix.MNT_DETACH
		}
		err := errno.Retry(func() error { return p.sys.unmount(p.path(), flags) })
		switch {
		case err == nil:
			return true, nil
		case notMounted(err):
			return false, nil
		case errors.Is(err, unix.EBUSY) && flags&unix.MNT_DETACH == 0:
			time.Sleep(wait)
			wait = min(2*wait, busyMost)
		default:
			return true, fmt.Errorf("unmounting %s: %w", p.name, classed(err))
		}
	}
}

// notMounted says that there is nothing to unmount: EINVAL for a directory on which nothing is mounted and for a symlink
// that was not followed, umount(2).
func notMounted(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT)
}

// classed gives an error of the kernel the class that a client of the task API can act upon.
func classed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: %w", errdefs.ErrFailedPrecondition, err)
	}
	if errno.Class(err) != nil {
		return errno.New("", err)
	}
	return err
}
