package rootfs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// attachLoop makes a block device of a file (loop(4)). The device goes when it is closed and unmounted. The caller
// closes the descriptor.
func (s *system) attachLoop(file string, readonly, direct bool) (fd int, path string, err error) {
	flags := unix.O_RDWR
	if readonly {
		flags = unix.O_RDONLY
	}
	backing, err := s.openat(unix.AT_FDCWD, file, flags)
	if err != nil {
		return -1, "", fmt.Errorf("opening %s: %w", file, classed(err))
	}
	defer s.close(backing)
	control, err := s.openat(unix.AT_FDCWD, "/dev/loop-control", unix.O_RDWR)
	if err != nil {
		return -1, "", fmt.Errorf("opening /dev/loop-control: %w", classed(err))
	}
	defer s.close(control)
	for range loopTries {
		n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return -1, "", fmt.Errorf("finding a free loop device: %w", classed(err))
		}
		path = fmt.Sprintf("/dev/loop%d", n)
		fd, err = s.openat(unix.AT_FDCWD, path, flags)
		if err != nil {
			return -1, "", fmt.Errorf("opening %s: %w", path, classed(err))
		}
		err = configureLoop(fd, backing, file, readonly, direct)
		if err == nil {
			return fd, path, nil
		}
		s.close(fd)
		if !errors.Is(err, unix.EBUSY) {
			return -1, "", fmt.Errorf("attaching %s to %s: %w", file, path, classed(err))
		}
	}
	return -1, "", fmt.Errorf("no loop device stayed free: %w", classed(unix.EAGAIN))
}

// configureLoop attaches in one step, or on kernels before 5.8 in two. EBUSY: somebody else took the device.
func configureLoop(fd, backing int, file string, readonly, direct bool) error {
	c := unix.LoopConfig{Fd: uint32(backing)}
	copy(c.Info.File_name[:len(c.Info.File_name)-1], file)
	c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if readonly {
		c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if direct {
		c.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	err := unix.IoctlLoopConfigure(fd, &c)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) {
		return err
	}
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_FD, backing); err != nil {
		return err
	}
	c.Info.Flags &^= unix.LO_FLAGS_DIRECT_IO
	err = unix.IoctlLoopSetStatus64(fd, &c.Info)
	if err == nil && direct {
		err = unix.IoctlSetInt(fd, unix.LOOP_SET_DIRECT_IO, 1)
	}
	if err != nil {
		_ = unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
	}
	return err
}
