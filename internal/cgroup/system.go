package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// system is every way in which this package reaches the kernel, so that a test can let each of them fail.
type system struct {
	open     func(path string, flags int) (int, error)
	read     func(fd int, p []byte) (int, error)
	write    func(fd int, p []byte) (int, error)
	close    func(fd int) error
	rmdir    func(path string) error
	readDir  func(path string) ([]fs.DirEntry, error)
	eventfd  func() (int, error)
	inotify  func() (int, error)
	addWatch func(fd int, path string) (int, error)
	rmWatch  func(fd, wd int) error
}

func kernel() *system {
	return &system{
		open: func(path string, flags int) (int, error) {
			return unix.Open(path, flags|unix.O_CLOEXEC, 0)
		},
		read:    unix.Read,
		write:   unix.Write,
		close:   unix.Close,
		rmdir:   unix.Rmdir,
		readDir: os.ReadDir,
		eventfd: func() (int, error) { return unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) },
		inotify: func() (int, error) { return unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK) },
		addWatch: func(fd int, path string) (int, error) {
			return unix.InotifyAddWatch(fd, path, unix.IN_MODIFY)
		},
		rmWatch: func(fd, wd int) error {
			_, err := unix.InotifyRmWatch(fd, uint32(wd))
			return err
		},
	}
}

// readFile reads a whole file of a pseudo file system. It spares os.ReadFile's two calls of fstat, as reading stats is
// little else than opening some twenty small files, and leaves no garbage but the text, which is mostly short.
func (s *system) readFile(path string) ([]byte, error) {
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	text, err := s.readInto(*chunk, path)
	return bytes.Clone(text), err
}

// chunks are buffers of readChunk bytes.
var chunks = sync.Pool{New: func() any {
	chunk := make([]byte, 0, readChunk)
	return &chunk
}}

// readInto is readFile into buf, which grows where it must.
func (s *system) readInto(buf []byte, path string) ([]byte, error) {
	fd, err := errno.RetryValue(func() (int, error) { return s.open(path, unix.O_RDONLY) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer s.close(fd)
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := errno.RetryValue(func() (int, error) { return s.read(fd, buf[len(buf):cap(buf)]) })
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return buf, nil
		}
		buf = buf[:len(buf)+n]
		if len(buf) > maxFile {
			return nil, fmt.Errorf("%s is longer than %d bytes: %w", path, maxFile, errdefs.ErrResourceExhausted)
		}
	}
}

// writeFile writes data to an existing control file in one write, as cgroup files ask for.
func (s *system) writeFile(path, data string) error {
	fd, err := errno.RetryValue(func() (int, error) { return s.open(path, unix.O_WRONLY) })
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer s.close(fd)
	if _, err := errno.RetryValue(func() (int, error) { return s.write(fd, []byte(data)) }); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// gone says that a file is not there (any more). A file that was opened before its cgroup was removed answers ENODEV,
// a process that is gone ESRCH.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH)
}

// unsupported says that a file is there but has nothing to say: pressure where PSI was switched off by the command line.
func unsupported(err error) bool { return errors.Is(err, unix.EOPNOTSUPP) }

// classed gives an error of the kernel the class that a client of the task API can act upon.
func classed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	if errno.Class(err) != nil {
		return errno.New("", err)
	}
	return err
}
