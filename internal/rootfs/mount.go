package rootfs

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
	"github.com/larkshim/lark/internal/routine"
)

// mountOne mounts one request; if it fails, nothing of it is left.
func (m *Mounter) mountOne(b *bundle, r *request) error {
	p, err := b.walk(r.steps())
	if err != nil {
		return err
	}
	defer p.close()
	switch program, subtype := r.helper(); {
	case program != "":
		return m.byProgram(p, r, program, subtype)
	case r.uidmap == nil:
		return m.plain(p, r, "")
	case r.fstype == "overlay":
		return m.idmappedOverlay(b, p, r)
	}
	if err := m.plain(p, r, ""); err != nil {
		return err
	}
	if err := m.idmapInPlace(p, r); err != nil {
		_, undo := p.unmount()
		return errors.Join(err, undo)
	}
	return nil
}

// plain mounts without regard to id mappings. base is the directory from which an overlay's layers are named, "" for
// the root.
func (m *Mounter) plain(p place, r *request, base string) error {
	data, err := r.fit(&base)
	if err != nil {
		return err
	}
	source := r.source
	if r.loop {
		dev, path, err := m.sys.attachLoop(source, r.flags&unix.MS_RDONLY != 0, r.directIO)
		if err != nil {
			return err
		}
		// The mount holds the device from here on; it detaches itself with its last user (autoclear).
		defer m.sys.close(dev)
		source = path
	}
	target, err := p.open()
	if err != nil {
		return err
	}
	defer m.sys.close(target)
	err = m.sys.mountFrom(base, func() error {
		return m.sys.mount(source, fdPath(target), r.fstype, r.flags, data)
	})
	if err != nil {
		return fmt.Errorf("mount of %q (type %q, options %q): %w", source, r.fstype, abridged(data), classed(err))
	}
	if r.flags&(unix.MS_BIND|unix.MS_REMOUNT) != unix.MS_BIND || r.flags&^(unix.MS_BIND|unix.MS_REC) == 0 {
		return nil
	}
	if err := m.remount(p, r.flags); err != nil {
		_, undo := p.unmount()
		return errors.Join(err, undo)
	}
	return nil
}

// fit is the data of mount(2). An overlay's layers are named from a common directory, base, where they would not fit
// into a page otherwise.
func (r *request) fit(base *string) (string, error) {
	data := r.data
	joined := strings.Join(data, ",")
	if len(joined) > maxData && r.fstype == "overlay" && *base == "" {
		if dir, shorter := from(data); dir != "" {
			*base, joined = dir, strings.Join(shorter, ",")
		}
	}
	if len(joined) > maxData {
		return "", fmt.Errorf("%d bytes of mount options, at most %d: %w", len(joined), maxData, errdefs.ErrInvalidArgument)
	}
	return joined, nil
}

// abridged keeps an error message with options in bounds.
func abridged(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// remount applies the flags that a bind mount takes only when it is remounted (mount(2), "Creating a bind mount"). In a
// user namespace the flags that the source was locked with must be kept, or it is EPERM.
func (m *Mounter) remount(p place, flags uintptr) error {
	target, err := p.open()
	if err != nil {
		return err
	}
	defer m.sys.close(target)
	flags = flags&^unix.MS_REC | unix.MS_REMOUNT
	err = m.sys.mount("", fdPath(target), "", flags, "")
	if errors.Is(err, unix.EPERM) {
		var st unix.Statfs_t
		if unix.Fstatfs(target, &st) == nil {
			// The ST_ flags of statfs have the values of the MS_ flags for these.
			const lockable = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NOATIME | unix.MS_NODIRATIME
			flags |= uintptr(st.Flags) & lockable
			if st.Flags&unix.ST_RELATIME != 0 {
				flags |= unix.MS_RELATIME
			}
			err = m.sys.mount("", fdPath(target), "", flags, "")
		}
	}
	if err != nil {
		return fmt.Errorf("remount with flags %#x: %w", flags, classed(err))
	}
	return nil
}

var errMountPanic = fmt.Errorf("a mount call panicked: %w", errdefs.ErrInternal)

// mountFrom runs a mount call with dir as the working directory of the one thread that makes it, "" for the process's.
//
// The thread gets a working directory, root and umask of its own (unshare(2), CLONE_FS) and cannot be made to share
// the process's again. It is not ended, as ending it would kill the children with a parent-death signal that were
// forked from it; it is put back to where it was and used on, which nobody notices as long as the shim changes neither
// its working directory nor its umask once it serves.
func (s *system) mountFrom(dir string, mount func() error) error {
	if dir == "" {
		return mount()
	}
	cwd, err := s.openat(unix.AT_FDCWD, ".", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer s.close(cwd)
	result := make(chan error, 1)
	routine.Go(nil, "mount", func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(dir)
		}
		if err == nil {
			err = mount()
		}
		back := unix.Fchdir(cwd)
		result <- err
		if back != nil {
			select {} // never give a thread that stands elsewhere to anybody, nor end it
		}
		runtime.UnlockOSThread()
	}, routine.DebtFunc(func() { close(result) }))
	err, ended := <-result
	if !ended {
		return errMountPanic
	}
	return err
}

// byProgram lets a FUSE program mount. It wants a path to a mount point that exists.
func (m *Mounter) byProgram(p place, r *request, program, subtype string) error {
	target, err := p.open()
	if err != nil {
		return err
	}
	defer m.sys.close(target)
	path, err := m.sys.readlink(fdPath(target))
	if err != nil {
		return fmt.Errorf("finding the mount point's path: %w", classed(err))
	}
	args := []string{r.source, path}
	for _, o := range r.options {
		args = append(args, "-o", o)
	}
	cmd := exec.Command(program, append(args, "-t", subtype)...)
	if said, err := m.help(cmd); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return errno.Classed(program, errdefs.ErrFailedPrecondition, err)
		}
		return fmt.Errorf("%s: %w: %s", program, err, said)
	}
	return nil
}
