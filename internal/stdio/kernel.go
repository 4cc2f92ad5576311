package stdio

// kernel.go is the narrow way from this package to the system, so that a test
// can make the N-th step fail.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// kernel is what the package asks of the system.
type kernel interface {
	open(path string, flags int, mode uint32) (int, error)
	fstat(fd int) (unix.Stat_t, error)
	// pipe returns close-on-exec ends, blocking.
	pipe() (r, w int, err error)
	nonblock(fd int) error
	chown(fd, uid, gid int) error
	chmod(fd int, mode uint32) error
	read(fd int, p []byte) (int, error)
	write(fd int, p []byte) (int, error)
	// splice moves bytes from one pipe to another without waiting.
	splice(from, to, n int) (int, error)
	// poll asks whether a pipe has bytes to read, and whether its other end is
	// closed.
	poll(fd int) (bytes, hungUp bool, err error)
	// pipeSize is how many bytes a pipe holds, setPipeSize sets it.
	pipeSize(fd int) (int, error)
	setPipeSize(fd, size int) error
	mkdirTemp(dir, pattern string) (string, error)
	mkdirAll(dir string) error
}

// host is the real system.
type host struct{}

func (host) open(path string, flags int, mode uint32) (int, error) {
	return unix.Open(path, flags|unix.O_CLOEXEC, mode)
}

func (host) fstat(fd int) (st unix.Stat_t, err error) {
	err = unix.Fstat(fd, &st)
	return st, err
}

func (host) pipe() (int, int, error) {
	var p [2]int
	err := unix.Pipe2(p[:], unix.O_CLOEXEC)
	return p[0], p[1], err
}

func (host) nonblock(fd int) error           { return unix.SetNonblock(fd, true) }
func (host) chown(fd, uid, gid int) error    { return unix.Fchown(fd, uid, gid) }
func (host) chmod(fd int, mode uint32) error { return unix.Fchmod(fd, mode) }

func (host) read(fd int, p []byte) (int, error)  { return unix.Read(fd, p) }
func (host) write(fd int, p []byte) (int, error) { return unix.Write(fd, p) }

func (host) splice(from, to, n int) (int, error) {
	m, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	return int(m), err
}

func (host) poll(fd int) (bytes, hungUp bool, err error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, err = unix.Poll(fds, 0)
	return fds[0].Revents&unix.POLLIN != 0, fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0, err
}

func (host) pipeSize(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0) }

func (host) setPipeSize(fd, size int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, size)
	return err
}

func (host) mkdirTemp(dir, pattern string) (string, error) { return os.MkdirTemp(dir, pattern) }
func (host) mkdirAll(dir string) error                     { return os.MkdirAll(dir, 0o755) }

// restarting repeats what a signal interrupted: the Go runtime preempts with them.
type restarting struct{ kernel }

func (r restarting) open(path string, flags int, mode uint32) (int, error) {
	return errno.RetryValue(func() (int, error) { return r.kernel.open(path, flags, mode) })
}

func (r restarting) read(fd int, p []byte) (int, error) {
	return errno.RetryValue(func() (int, error) { return r.kernel.read(fd, p) })
}

func (r restarting) write(fd int, p []byte) (int, error) {
	return errno.RetryValue(func() (int, error) { return r.kernel.write(fd, p) })
}

func (r restarting) splice(from, to, n int) (int, error) {
	return errno.RetryValue(func() (int, error) { return r.kernel.splice(from, to, n) })
}

func (r restarting) poll(fd int) (bytes, hungUp bool, err error) {
	_, err = errno.RetryValue(func() (int, error) {
		bytes, hungUp, err = r.kernel.poll(fd)
		return 0, err
	})
	return bytes, hungUp, err
}

// output is an open target of output.
type output struct {
	file *os.File
	// keep is a reading end of a FIFO that nobody reads from, -1 for a file.
	// Nobody need read the FIFO yet (opening it to write alone would wait, or
	// fail with ENXIO), and a reader that goes away leaves no EPIPE behind
	// (fifo(7)). It is apart from the writing end, and not in the poller:
	// otherwise each write of ours would wake us as the reader.
	keep int
}

// openOutput opens where output goes: a FIFO, or a regular file or character
// device that is appended to and must exist unless the target is file://.
func openOutput(k kernel, t target) (output, error) {
	fd, format, err := openChecked(k, t)
	if err != nil {
		return output{}, err
	}
	if format != unix.S_IFIFO {
		return output{file: os.NewFile(uintptr(fd), t.path), keep: -1}, nil
	}
	// Through /proc, so that it is the same FIFO whatever the path says by now.
	wfd, err := k.open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		unix.Close(fd)
		return output{}, openError(t.path, err)
	}
	return output{file: os.NewFile(uintptr(wfd), t.path), keep: fd}, nil
}

// openChecked opens a target and makes sure of what it is. A log may be named by a
// link, as /dev/stderr and the current one of a rotated set are; a FIFO that was
// asked for as such may not.
func openChecked(k kernel, t target) (fd int, format uint32, err error) {
	const flags = unix.O_APPEND | unix.O_NONBLOCK | unix.O_NOCTTY
	switch t.kind {
	case kindFile:
		fd, err = openOrMake(k, t.path, flags|unix.O_WRONLY, 0)
	case kindFIFO:
		fd, err = k.open(t.path, flags|unix.O_RDWR|unix.O_NOFOLLOW, 0)
	default:
		fd, err = k.open(t.path, flags|unix.O_RDWR, 0)
	}
	if err != nil {
		return -1, 0, openError(t.path, err)
	}
	st, err := k.fstat(fd)
	if err != nil {
		unix.Close(fd)
		return -1, 0, openError(t.path, err)
	}
	format = st.Mode & unix.S_IFMT
	switch {
	case format == unix.S_IFIFO && t.kind != kindFile,
		(format == unix.S_IFREG || format == unix.S_IFCHR) && t.kind != kindFIFO:
		return fd, format, nil
	}
	unix.Close(fd)
	return -1, 0, bad(t.path, "is neither a FIFO nor a regular file nor a character device, or not what its scheme says")
}

// openOrMake opens a log file, making it (0644) and its directories (0755) if
// need be, also where a link points. links is how many were followed.
func openOrMake(k kernel, path string, flags, links int) (int, error) {
	fd, err := k.open(path, flags, 0)
	if err != unix.ENOENT {
		return fd, err
	}
	if err := k.mkdirAll(filepath.Dir(path)); err != nil {
		return -1, err
	}
	fd, err = k.open(path, flags|unix.O_CREAT|unix.O_EXCL, 0o644)
	if err == unix.EEXIST { // another program was faster, or path is a link to nothing
		if to, lerr := os.Readlink(path); lerr == nil && links < linksMax {
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(path), to)
			}
			return openOrMake(k, to, flags, links+1)
		}
		return k.open(path, flags, 0)
	}
	if err != nil {
		return -1, err
	}
	// Whatever the umask: log readers need not be root.
	if err := k.chmod(fd, 0o644); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openInput opens both ends of a FIFO: the one to read from, and one to write,
// which keeps the reading end from seeing EOF until CloseStdin.
func openInput(k kernel, t target) (r, w *os.File, err error) {
	flags := unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
	rfd, err := k.open(t.path, unix.O_RDONLY|flags, 0)
	if err != nil {
		return nil, nil, openError(t.path, err)
	}
	st, err := k.fstat(rfd)
	if err != nil {
		unix.Close(rfd)
		return nil, nil, openError(t.path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(rfd)
		return nil, nil, bad(t.path, "is not a FIFO")
	}
	wfd, err := k.open(t.path, unix.O_WRONLY|flags, 0)
	if err != nil {
		unix.Close(rfd)
		return nil, nil, openError(t.path, err)
	}
	return os.NewFile(uintptr(rfd), t.path), os.NewFile(uintptr(wfd), t.path), nil
}

// openError classes what open(2) and its kin say of a client's path.
func openError(path string, err error) error {
	perr := error(&os.PathError{Op: "open", Path: path, Err: err})
	var inner *os.PathError
	if errors.As(err, &inner) {
		perr = err
	}
	class := errno.Class(err)
	if class == nil || class == errdefs.ErrFailedPrecondition {
		// Missing, a directory, a link (ELOOP), a socket (ENXIO), a name too long.
		class = errdefs.ErrInvalidArgument
	}
	return fmt.Errorf("stdio: %w: %w", class, perr)
}

// systemError classes a failure that has nothing to do with what the client asked.
func systemError(doing string, err error) error {
	class := error(errdefs.ErrInternal)
	if errno.Exhausted(err) {
		class = errdefs.ErrResourceExhausted
	}
	return fmt.Errorf("stdio: %s: %w: %w", doing, class, err)
}
