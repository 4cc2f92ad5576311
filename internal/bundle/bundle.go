package bundle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
	"github.com/larkshim/lark/internal/failpoint"
)

// The files of a bundle that the shim reads or writes.
const (
	specFile    = "config.json" // containerd's
	optionsFile = "options.json"
	runtimeFile = "runtime"
	exitFile    = "exit.json"
	initPIDFile = "init.pid"
	logFile     = "log.json" // the runtime's own log
	rootfsDir   = "rootfs"
	workDir     = "work"

	addressFile   = "address"
	socketDirLink = "s"

	execPIDPrefix = "exec-"
)

// Bundle is one container's bundle directory, held open: what it reads and
// writes is in the directory that was verified, even if somebody renames that
// and puts another in its place. Safe for concurrent use until Close.
type Bundle struct {
	path string
	dir  *os.File
	temp atomic.Uint64 // makes names of temporary files unique within the process
}

// Open verifies and opens the bundle at path: an absolute, clean path to a real
// directory (no symbolic link) that belongs to the calling user. Containerd may
// have given it another group and mode 0710 for a user namespace; more is not
// asked. errno.ErrMissing if there is nothing, otherwise InvalidArgument.
func Open(path string) (*Bundle, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, fmt.Errorf("bundle path %q is not absolute and clean: %w", path, errdefs.ErrInvalidArgument)
	}
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("bundle %q: %w", path, classify(err))
	}
	dir := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		dir.Close()
		return nil, fmt.Errorf("bundle %q: %w", path, classify(err))
	}
	if int(st.Uid) != os.Geteuid() {
		dir.Close()
		return nil, fmt.Errorf("bundle %q belongs to uid %d, not %d: %w", path, st.Uid, os.Geteuid(), errdefs.ErrInvalidArgument)
	}
	return &Bundle{path: path, dir: dir}, nil
}

// openat is openat(2), close-on-exec and again when a signal interrupts it, which some
// file systems let happen.
func openat(dir int, name string, flags int, mode uint32) (int, error) {
	return errno.RetryValue(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode) })
}

// classify maps what the kernel says to the class that a client can act upon. ELOOP and
// ENOTDIR both mean a symbolic link (with O_DIRECTORY the kernel may say either).
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL):
		return errno.Classed("", errdefs.ErrInvalidArgument, err)
	}
	return errno.New("", err)
}

// Close lets go of the directory. The files stay.
func (b *Bundle) Close() error { return b.dir.Close() }

// Path is the absolute path the bundle was opened at.
func (b *Bundle) Path() string { return b.path }

// Rootfs is the absolute path of the root filesystem's mount point.
func (b *Bundle) Rootfs() string { return filepath.Join(b.path, rootfsDir) }

// Work is the absolute path of the work directory, a link that containerd makes
// to a place that outlives a reboot; checkpoints work there.
func (b *Bundle) Work() string { return filepath.Join(b.path, workDir) }

// LogPath is where the OCI runtime writes its JSON log.
func (b *Bundle) LogPath() string { return filepath.Join(b.path, logFile) }

// PIDPath is where the OCI runtime writes the pid of the process: init.pid for
// init, a name that no other file can have for an exec.
func (b *Bundle) PIDPath(id ExecID) string { return filepath.Join(b.path, id.pidFile()) }

// RemovePID removes the process's pid file; that there is none is no error.
func (b *Bundle) RemovePID(id ExecID) error {
	err := unix.Unlinkat(b.fd(), id.pidFile(), 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return classify(&os.PathError{Op: "unlinkat", Path: b.PIDPath(id), Err: err})
	}
	return nil
}

// ReadPID reads the process's pid file. It is only what the file says: whose
// process that is has to be proved before anything is done to it. errno.ErrMissing if
// there is no file; FailedPrecondition if it holds anything but one number
// above 1 (0 and -1 would address groups of processes, 1 is the system's init).
func (b *Bundle) ReadPID(id ExecID) (int, error) {
	data, err := b.read(id.pidFile(), maxPIDFileSize)
	if err != nil {
		return 0, err
	}
	return parsePID(data)
}

func parsePID(data []byte) (int, error) {
	for len(data) > 0 && (data[len(data)-1] == '\n' || data[len(data)-1] == ' ') {
		data = data[:len(data)-1]
	}
	for _, c := range data {
		if c < '0' || c > '9' { // strconv would take a sign
			return 0, fmt.Errorf("pid file says %q: %w", data, errdefs.ErrFailedPrecondition)
		}
	}
	pid, err := strconv.ParseInt(string(data), 10, 32)
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("pid file says %q: %w", data, errdefs.ErrFailedPrecondition)
	}
	return int(pid), nil
}

func (b *Bundle) fd() int { return int(b.dir.Fd()) }

// read returns the whole of a regular file of the bundle. errno.ErrMissing if there is
// none, InvalidArgument if it is not a regular file or longer than limit.
func (b *Bundle) read(name string, limit int64) ([]byte, error) {
	// O_NONBLOCK: a FIFO in the file's place must not hold us up.
	fd, err := openat(b.fd(), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(b.path, name), classify(err))
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return readBounded(f, filepath.Join(b.path, name), limit)
}

func readBounded(f *os.File, name string, limit int64) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, classify(err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file (%v): %w", name, st.Mode().Type(), errdefs.ErrInvalidArgument)
	}
	// The size is only a first look: the file may grow while it is read.
	data := make([]byte, 0, min(st.Size(), limit)+1)
	for {
		n, err := f.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) > limit:
			return nil, fmt.Errorf("%s is longer than %d bytes: %w", name, limit, errdefs.ErrInvalidArgument)
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, classify(err)
		case len(data) == cap(data):
			data = append(data, 0)[:len(data)]
		}
	}
}

// tempName is that of a file about to take another's place. A dot in front keeps it
// from being an exec's.
func (b *Bundle) tempName(name string) string {
	return fmt.Sprintf(".%s.%d.%d", name, os.Getpid(), b.temp.Add(1))
}

// write replaces a file of the bundle as a whole, or leaves it as it was. There
// is no fsync: bundles lie on a tmpfs, and after a reboot there is nothing left
// to which they could apply.
func (b *Bundle) write(name string, data []byte) error {
	return classify(b.replace(name, data))
}

func (b *Bundle) replace(name string, data []byte) (err error) {
	tmp := b.tempName(name)
	fd, err := openat(b.fd(), tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, fileMode)
	if err != nil {
		return &os.PathError{Op: "create", Path: filepath.Join(b.path, tmp), Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(b.path, tmp))
	defer func() {
		if err != nil {
			_ = unix.Unlinkat(b.fd(), tmp, 0)
		}
	}()
	if err := f.Chmod(fileMode); err != nil { // a umask can have taken bits away
		f.Close()
		return err
	}
	if _, err := f.Write(data); err != nil { // ENOSPC and a short write arrive here
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	failpoint.Point("bundle: " + name + " written beside")
	if err := unix.Renameat(b.fd(), tmp, b.fd(), name); err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: filepath.Join(b.path, name), Err: err}
	}
	failpoint.Point("bundle: " + name + " in place")
	return nil
}
