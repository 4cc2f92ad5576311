package bootstrap

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/errno"
)

// socketPath is where the shim of a group listens. The formula is containerd's, the
// same from 1.6 to 2.4, and its tests compute it.
func socketPath(dir, grpcAddress string, ns bundle.Namespace, group string) (string, error) {
	sum := sha256.Sum256([]byte(filepath.Join(grpcAddress, ns.String(), group)))
	path := filepath.Join(dir, fmt.Sprintf("%x", sum))
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("socket path %s is longer than %d bytes: %w", path, maxSocketPath, errdefs.ErrInvalidArgument)
	}
	return path, nil
}

// socketDir is a directory of sockets, verified and held open.
type socketDir struct {
	path  string
	f     *os.File
	locks *os.File // lockFile in it; nil until lock is called
}

// openSocketDir makes the directory if it is missing and verifies it: a real
// directory, ours, and nobody else may so much as look into it (CVE-2020-15257 was
// about a socket that others could reach). One of ours that is too open, as older
// shims made it, is narrowed.
func openSocketDir(path string) (*socketDir, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, fmt.Errorf("socket directory %q is not absolute and clean: %w", path, errdefs.ErrInvalidArgument)
	}
	fd, err := openDirectory(path)
	if errors.Is(err, unix.ENOENT) {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, fmt.Errorf("socket directory: %w", err)
		}
		fd, err = openDirectory(path)
	}
	if err != nil {
		return nil, fmt.Errorf("socket directory %s: %w", path, err)
	}
	d := &socketDir{path: path, f: os.NewFile(uintptr(fd), path)}
	if err := d.verify(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// openDirectory opens a directory that is no link, and again if a signal interrupts that.
func openDirectory(path string) (int, error) {
	return errno.RetryValue(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

func (d *socketDir) verify() error {
	var st unix.Stat_t
	fd := int(d.f.Fd())
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("socket directory %s: %w", d.path, err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("socket directory %s belongs to uid %d: %w", d.path, st.Uid, errdefs.ErrPermissionDenied)
	}
	if st.Mode&0o077 == 0 && st.Mode&0o700 == 0o700 {
		return nil
	}
	if err := unix.Fchmod(fd, 0o700); err != nil {
		return fmt.Errorf("socket directory %s has mode %#o: %w", d.path, st.Mode&0o7777, err)
	}
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&0o077 != 0 {
		return fmt.Errorf("socket directory %s keeps mode %#o: %w", d.path, st.Mode&0o7777, errdefs.ErrPermissionDenied)
	}
	return nil
}

func (d *socketDir) close() {
	d.f.Close()
	if d.locks != nil {
		d.locks.Close()
	}
}

// acquire gets the socket at path, which is in d and for which the caller holds the
// lock: a new one that listens, or nil if some process of ours answers there
// already. What a dead shim has left is removed.
func (d *socketDir) acquire(path string) (*os.File, error) {
	for range 2 {
		f, err := listen(path)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("socket %s: %w", path, err)
		}
		alive, err := answers(path)
		if err != nil {
			return nil, err
		}
		if alive {
			return nil, nil
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("stale socket: %w", err)
		}
	}
	return nil, fmt.Errorf("socket %s comes back as often as it is removed: %w", path, errdefs.ErrUnavailable)
}

// listen makes a socket that is mode 0600 from its first moment: bind(2) gives the
// file the mode of the socket's own inode, less the umask.
func listen(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := unix.Fchmod(fd, 0o600); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fchmod", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		f.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		_ = unix.Unlink(path)
		f.Close()
		return nil, os.NewSyscallError("listen", err)
	}
	return f, nil
}

// answers reports whether a process of our own user listens at path. It does not
// wait for it: connect(2) on a unix socket succeeds as soon as there is room in the
// backlog, and says EAGAIN when there is none.
func answers(path string) (bool, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	switch {
	case errors.Is(err, unix.EAGAIN):
		return true, nil
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPROTOTYPE), errors.Is(err, unix.ENOTSOCK):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("socket %s: %w", path, os.NewSyscallError("connect", err))
	}
	// On a connected socket these are the listener's credentials, from listen(2).
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return false, os.NewSyscallError("SO_PEERCRED", err)
	}
	if int(cred.Uid) != os.Geteuid() {
		return false, fmt.Errorf("socket %s is served by uid %d: %w", path, cred.Uid, errdefs.ErrPermissionDenied)
	}
	return true, nil
}

// identity tells a file from another that has its name later.
type identity struct{ dev, ino uint64 }

func identityOf(path string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return identity{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return identity{uint64(st.Dev), st.Ino}, nil
}

// removeSocket unlinks the socket at path if it is still the one that was meant; a
// start may have put another in its place.
func removeSocket(path string, was identity) error {
	dir, err := openSocketDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.close()
	if err := dir.lock(path, lockTimeout); err != nil {
		return err
	}
	now, err := identityOf(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case now != was:
		return nil // not ours
	}
	return os.Remove(path)
}

// removeStale unlinks the socket at path if nobody answers there.
func removeStale(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	dir, err := openSocketDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.close()
	if err := dir.lock(path, lockTimeout); err != nil {
		return err
	}
	if alive, err := answers(path); err != nil || alive {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
