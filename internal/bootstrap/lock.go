package bootstrap

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// lock keeps other starts and ends of the socket at path out: a start that found the
// socket bound and not yet listening would take it for a dead one. Those of other
// sockets go on. close gives the lock back, and so does the kernel when the process is
// killed.
//
// The lock is one byte of lockFile, whose offset is derived from the socket's name
// (an open file description lock, fcntl(2), Linux 3.15). A file for each socket would
// have to be removed, and a lock on the directory is one for the whole node.
func (d *socketDir) lock(path string, timeout time.Duration) error {
	at := lockOffset(filepath.Base(path))
	for deadline := time.Now().Add(timeout); ; time.Sleep(lockPoll) {
		err := d.tryLock(at)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES):
			return fmt.Errorf("lock of socket %s: %w", path, err)
		case time.Now().After(deadline):
			return fmt.Errorf("lock of socket %s: held for %v by another start: %w", path, timeout, errdefs.ErrUnavailable)
		}
	}
}

// lockOffset is the byte that stands for the socket. Two sockets that share one would
// wait for each other, and nothing worse.
func lockOffset(name string) int64 {
	sum := sha256.Sum256([]byte(name))
	return int64(binary.BigEndian.Uint64(sum[:]) >> 2)
}

// tryLock locks the byte, of the file that others find: a file that was removed would
// keep no other start out.
func (d *socketDir) tryLock(at int64) error {
	for {
		if err := d.openLocks(); err != nil {
			return err
		}
		lockErr := d.setLock(unix.F_WRLCK, at)
		same, err := d.locksAreInPlace()
		if err != nil || same {
			return errors.Join(lockErr, err)
		}
		d.locks.Close()
		d.locks = nil
	}
}

// openLocks opens lockFile, which is made if it is missing. It is there whenever there
// is a socket, so that an end needs no space on the disk.
func (d *socketDir) openLocks() error {
	if d.locks != nil {
		return nil
	}
	fd, err := errno.RetryValue(func() (int, error) {
		return unix.Openat(int(d.f.Fd()), lockFile, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return os.NewSyscallError("openat "+lockFile, err)
	}
	d.locks = os.NewFile(uintptr(fd), filepath.Join(d.path, lockFile))
	return nil
}

func (d *socketDir) locksAreInPlace() (bool, error) {
	var ours, now unix.Stat_t
	if err := unix.Fstat(int(d.locks.Fd()), &ours); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	err := unix.Fstatat(int(d.f.Fd()), lockFile, &now, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return false, os.NewSyscallError("fstatat", err)
	}
	return err == nil && ours.Dev == now.Dev && ours.Ino == now.Ino, nil
}

func (d *socketDir) unlock(path string) {
	if d.locks != nil {
		_ = d.setLock(unix.F_UNLCK, lockOffset(filepath.Base(path)))
	}
}

func (d *socketDir) setLock(kind int16, at int64) error {
	l := unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: at, Len: 1}
	return errno.Retry(func() error { return unix.FcntlFlock(d.locks.Fd(), unix.F_OFD_SETLK, &l) })
}
