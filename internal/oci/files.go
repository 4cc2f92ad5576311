package oci

// files.go is the narrow way from this package to the file system, so that a
// test can make the N-th step fail. Plain syscalls rather than os.File: the
// files are small and local, and os.Open would ask the poller about each.

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// files is what the package does to the file system.
type files interface {
	// readFile returns at most max bytes from the start of a regular file; more
	// is an error. It follows no symlink.
	readFile(path string, max int) ([]byte, error)
	// readEnd returns at most max bytes from the end of what lies behind from.
	readEnd(path string, from int64, max int) ([]byte, error)
	// size returns the length of a file, 0 if it is not there.
	size(path string) int64
	// remove unlinks a file; that it is not there is no error.
	remove(path string) error
	// exists tells whether there is something under this name.
	exists(path string) (bool, error)
	// memory returns an anonymous file that holds data, read from its start.
	memory(name string, data []byte) (*os.File, error)
	// pipe returns a pipe, both ends close-on-exec, the read end non-blocking.
	pipe() (r, w *os.File, err error)
}

// host is the real file system.
type host struct{}

func (host) readFile(path string, max int) ([]byte, error) {
	fd, err := openRead(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, max+1)
	n, err := readFull(fd, buf, 0)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	if n > max {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, max)
	}
	return buf[:n], nil
}

func (host) readEnd(path string, from int64, max int) ([]byte, error) {
	fd, err := openRead(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	data, err := endOf(fd, from, max)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return data, nil
}

// endOf returns at most max bytes from the end of what lies behind from.
func endOf(fd int, from int64, max int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size < from { // somebody truncated it
		from = 0
	}
	if st.Size-from > int64(max) {
		from = st.Size - int64(max)
	}
	buf := make([]byte, st.Size-from)
	n, err := readFull(fd, buf, from)
	return buf[:n], err
}

func (host) size(path string) int64 {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0
	}
	return st.Size
}

func (host) remove(path string) error {
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "unlink", Path: path, Err: err}
	}
	return nil
}

func (host) exists(path string) (bool, error) {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); err {
	case nil:
		return true, nil
	case unix.ENOENT, unix.ENOTDIR:
		return false, nil
	default:
		return false, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
}

func (host) memory(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	// At an offset, so that ours, which a child may inherit as its stdin, stays at
	// the start.
	for at := 0; at < len(data); {
		n, err := errno.RetryValue(func() (int, error) { return unix.Pwrite(fd, data[at:], int64(at)) })
		if err != nil {
			unix.Close(fd)
			return nil, os.NewSyscallError("pwrite", err)
		}
		at += n
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (host) pipe() (*os.File, *os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	// Only our end: O_NONBLOCK on the other would be the runtime's too, and a
	// runtime does not expect EAGAIN from its stderr.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), "runtime output"), os.NewFile(uintptr(fds[1]), "runtime output"), nil
}

// openRead opens a regular file without following a link and without waiting,
// should it be a FIFO.
func openRead(path string) (int, error) {
	fd, err := errno.RetryValue(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func readFull(fd int, buf []byte, from int64) (int, error) {
	n := 0
	for n < len(buf) {
		m, err := errno.RetryValue(func() (int, error) { return unix.Pread(fd, buf[n:], from+int64(n)) })
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

// deadlineIn is a read deadline d from now.
func deadlineIn(d time.Duration) time.Time { return time.Now().Add(d) }
