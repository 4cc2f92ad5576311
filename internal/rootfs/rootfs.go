// Package rootfs mounts what a Create request says a container's root file system is made of, and unmounts it.
//
// Everything happens below <bundle>/rootfs, reached from a descriptor of the bundle step by step without following a
// symlink: what lies below may be a container's, who could otherwise turn a mount or an unmount against the host. A
// request is mounted as a whole or not at all.
//
// The mount calls are made here and not by containerd's core/mount: that one ends an OS thread whenever an overlay's
// options are long, and the kernel then kills every child with a parent-death signal that was forked from that thread.
// It also would add 0.6 MB of binary.
package rootfs

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

const (
	// dirName is where in the bundle the runtime finds the root file system.
	dirName = "rootfs"
	// lowerName is where in the bundle an idmapped overlay's layers are mounted while it is being made.
	lowerName = "rootfs-lower"
	// dirMode lets the users of a user namespace through, to nothing that they could list.
	dirMode = 0o711
)

// Mounter mounts and unmounts. It keeps nothing between calls, and different bundles may be worked on at the same time.
type Mounter struct {
	sys        *system
	parent     Parent
	helperTime time.Duration
}

// New makes a Mounter. parent forks the helper processes that some mounts need: idmapped ones to hold a user namespace,
// and FUSE mounts, which are made by a program. Without a parent there are no FUSE mounts.
func New(parent Parent) *Mounter {
	return &Mounter{sys: kernel(), parent: parent, helperTime: helperTime}
}

// Mount makes <bundle>/rootfs if need be and mounts all mounts there, in order. Without mounts it does nothing at all:
// then the root file system is wherever config.json says. It returns the directory, "" without mounts.
//
// On failure whatever was mounted is unmounted again, last first, and a directory made by this call removed. Errors:
// InvalidArgument (before anything is done) for requests that cannot be right, FailedPrecondition if a target or rootfs
// itself is a symlink or no directory, or for a source or target that is not there or a file system that the kernel has
// not (errno.ErrMissing besides), ResourceExhausted, else as the kernel has it, wrapped.
func (m *Mounter) Mount(bundle string, mounts []*types.Mount) (string, error) {
	if len(mounts) == 0 {
		return "", nil
	}
	requests, err := parse(mounts)
	if err != nil {
		return "", err
	}
	b, err := m.sys.openBundle(bundle)
	if err != nil {
		return "", err
	}
	defer b.close()
	made, err := b.mkdir(dirName)
	if err != nil {
		return "", err
	}
	for i := range requests {
		if err = m.mountOne(b, &requests[i]); err != nil {
			err = fmt.Errorf("failed to mount rootfs component %d (%s): %w", i, requests[i].fstype, err)
			undo := b.undo(requests[:i])
			if made {
				undo = errors.Join(undo, b.rmdir(dirName))
			}
			return "", errors.Join(err, undo)
		}
	}
	return filepath.Join(bundle, dirName), nil
}

// Unmount unmounts everything at and below <bundle>/rootfs, and the leftovers of a Mount that was killed half-way. It
// may be called again, and when nothing is mounted: nil. What is in use is detached after a while, to vanish with its last
// user. The directory stays: it is the daemon's.
//
// A bundle that is not there is errno.ErrMissing: it may be elsewhere, with the mount in it, for a while.
func (m *Mounter) Unmount(bundle string) error {
	b, err := m.sys.openBundle(bundle)
	if err != nil {
		return err
	}
	defer b.close()
	return errors.Join(b.unmountTree(dirName), b.dropLower())
}

// bundle is a bundle's directory, held open.
type bundle struct {
	sys *system
	fd  int
}

// openBundle opens the bundle, whose own path is the daemon's and may have symlinks (/var/run).
func (s *system) openBundle(dir string) (*bundle, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("bundle %q is not absolute: %w", dir, errdefs.ErrInvalidArgument)
	}
	fd, err := s.openat(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("opening bundle %s: %w", dir, classed(err))
	}
	return &bundle{sys: s, fd: fd}, nil
}

func (b *bundle) close() { b.sys.close(b.fd) }

// mkdir makes a directory of the bundle with dirMode whatever the umask, and says whether it was not there before.
func (b *bundle) mkdir(name string) (made bool, err error) {
	err = b.sys.mkdirat(b.fd, name, dirMode)
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err == nil {
		if err = b.sys.chmodat(b.fd, name, dirMode); err != nil {
			err = errors.Join(err, b.rmdir(name))
		}
	}
	if err != nil {
		return false, fmt.Errorf("making %s: %w", name, classed(err))
	}
	return true, nil
}

func (b *bundle) rmdir(name string) error {
	if err := b.sys.rmdirat(b.fd, name); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing %s: %w", name, classed(err))
	}
	return nil
}

// walk opens the directory that has the last of steps, which begin in the bundle, and returns it with that last step:
// "the name in a directory" is the only way to name a mount point without following a symlink or keeping it busy.
func (b *bundle) walk(steps []string) (place, error) {
	fd, err := b.sys.openat(b.fd, ".", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return place{}, fmt.Errorf("opening the bundle: %w", classed(err))
	}
	for _, s := range steps[:len(steps)-1] {
		next, err := b.sys.openat(fd, s, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		b.sys.close(fd)
		if err != nil {
			return place{}, fmt.Errorf("opening %s: %w", filepath.Join(steps...), classed(err))
		}
		fd = next
	}
	return place{sys: b.sys, parent: fd, name: steps[len(steps)-1]}, nil
}

// place is a name in an open directory.
type place struct {
	sys    *system
	parent int
	name   string
}

func (p place) close() { p.sys.close(p.parent) }

// open opens what is at the place, through whatever is mounted there: a directory, or a file to bind another on, but
// never a symlink (which O_PATH with O_NOFOLLOW would open as such).
func (p place) open() (int, error) {
	fd, err := p.sys.openat(p.parent, p.name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return -1, fmt.Errorf("opening mount point %s: %w", p.name, classed(err))
	}
	var st unix.Stat_t
	if err = p.sys.fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = unix.ELOOP
	}
	if err != nil {
		p.sys.close(fd)
		return -1, fmt.Errorf("mount point %s: %w", p.name, classed(err))
	}
	return fd, nil
}

// path names the place for calls that know no directory descriptors. With a call that does not follow a last symlink
// (UMOUNT_NOFOLLOW) there is nothing in it that anybody else could bend.
func (p place) path() string { return fdPath(p.parent) + "/" + p.name }

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// steps is the way from the bundle to a request's target.
func (r *request) steps() []string { return append([]string{dirName}, r.target...) }

// undo unmounts what was mounted, last first.
func (b *bundle) undo(done []request) error {
	var errs []error
	for _, r := range slices.Backward(done) {
		p, err := b.walk(r.steps())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_, err = p.unmount()
		p.close()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// unmountTree unmounts all that is mounted at and below a directory of the bundle. Reading the mount table costs more
// than the rest on a host with many containers, so it is read only if something is mounted below.
func (b *bundle) unmountTree(name string) error {
	p, err := b.walk([]string{name})
	if err != nil {
		return err
	}
	defer p.close()
	for range maxStacked {
		err := errno.Retry(func() error { return p.sys.unmount(p.path(), unix.UMOUNT_NOFOLLOW) })
		switch {
		case notMounted(err):
			return nil
		case errors.Is(err, unix.EBUSY):
			if err := b.unmountBelow(name); err != nil {
				return err
			}
			if mounted, err := p.unmount(); err != nil || !mounted {
				return err
			}
		case err != nil:
			return fmt.Errorf("unmounting %s: %w", name, classed(err))
		}
	}
	return fmt.Errorf("unmounting %s: still mounted after %d times: %w", name, maxStacked, errdefs.ErrUnavailable)
}

// unmountBelow unmounts what the mount table has below a directory of the bundle, last mounted first.
func (b *bundle) unmountBelow(name string) error {
	root, err := b.sys.readlink(fdPath(b.fd))
	if err != nil {
		return fmt.Errorf("finding the bundle's path: %w", classed(err))
	}
	points, err := b.sys.mountPoints(filepath.Join(root, name) + "/")
	if err != nil {
		return err
	}
	for _, point := range slices.Backward(points) {
		steps := append([]string{name}, strings.Split(point, "/")...)
		p, err := b.walk(steps)
		if err != nil {
			// Renamed or replaced since: the mount above goes, and takes it along.
			continue
		}
		_, err = p.unmount()
		p.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// dropLower removes what a killed Mount may have left.
func (b *bundle) dropLower() error {
	p, err := b.walk([]string{lowerName})
	if err != nil {
		return err
	}
	defer p.close()
	err = errno.Retry(func() error { return p.sys.unmount(p.path(), unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH) })
	if err != nil && !notMounted(err) {
		return fmt.Errorf("unmounting %s: %w", lowerName, classed(err))
	}
	return b.rmdir(lowerName)
}
