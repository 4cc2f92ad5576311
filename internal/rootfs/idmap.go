package rootfs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// idmapInPlace replaces the mount at a place by a copy of it whose owners are mapped (mount_setattr(2), Linux 5.12; the
// file system must know how).
func (m *Mounter) idmapInPlace(p place, r *request) error {
	mounted, err := p.open()
	if err != nil {
		return err
	}
	copied, err := m.idmapped(mounted, r, 0)
	m.sys.close(mounted)
	if err != nil {
		return err
	}
	defer m.sys.close(copied)
	if _, err := p.unmount(); err != nil {
		return err
	}
	if err := m.sys.move(copied, p.parent, p.name); err != nil {
		return fmt.Errorf("attaching the idmapped mount: %w", classed(err))
	}
	return nil
}

// idmapped is a detached copy of the mount tree at fd with the request's id mappings and the given MOUNT_ATTR_ flags.
func (m *Mounter) idmapped(fd int, r *request, attrs uint64) (copied int, err error) {
	userns, err := m.userNamespace(r.uidmap, r.gidmap)
	if err != nil {
		return -1, err
	}
	defer userns.Close()
	copied, err = m.sys.openTree(fd, unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("copying the mount to be idmapped: %w", unsupported(err))
	}
	err = m.sys.setattr(copied, unix.AT_RECURSIVE, &unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP | attrs,
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(userns.Fd()),
	})
	if err != nil {
		m.sys.close(copied)
		return -1, fmt.Errorf("idmapping the mount: %w", unsupported(err))
	}
	return copied, nil
}

// unsupported classes the refusals of kernels and file systems that have no idmapped mounts.
func unsupported(err error) error {
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w", errdefs.ErrNotImplemented, err)
	}
	return classed(err)
}

// idmappedOverlay mounts an overlay over idmapped layers: overlayfs itself cannot be idmapped. The directory that has
// all layers is idmapped once, read-only, in the bundle for as long as the call takes; the overlay keeps what it needs.
func (m *Mounter) idmappedOverlay(b *bundle, p place, r *request) error {
	common, relative := from(r.data)
	if common == "" {
		return fmt.Errorf("layers of an idmapped overlay must be below one directory: %w", errdefs.ErrInvalidArgument)
	}
	layers, err := m.sys.openat(unix.AT_FDCWD, common, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("opening the layers: %w", classed(err))
	}
	copied, err := m.idmapped(layers, r, unix.MOUNT_ATTR_RDONLY)
	m.sys.close(layers)
	if err != nil {
		return err
	}
	defer m.sys.close(copied)
	if _, err := b.mkdir(lowerName); err != nil {
		return err
	}
	err = m.overIdmapped(b, p, r, copied, relative)
	return errors.Join(err, b.dropLower())
}

// overIdmapped attaches the layers, which overlayfs asks for, and mounts the overlay with paths from there.
func (m *Mounter) overIdmapped(b *bundle, p place, r *request, copied int, relative []string) error {
	if err := m.sys.move(copied, b.fd, lowerName); err != nil {
		return fmt.Errorf("attaching the idmapped layers: %w", classed(err))
	}
	over := *r
	over.data = relative
	return m.plain(p, &over, fdPath(b.fd)+"/"+lowerName)
}

// userNamespace is a user namespace with the given mappings, held by a descriptor. It takes a process to make one, as
// the process that makes it must have a single thread (unshare(2)): a child that is stopped by ptrace before its
// first instruction, and killed.
func (m *Mounter) userNamespace(uids, gids []syscall.SysProcIDMap) (ns *os.File, err error) {
	err = m.guarded(func() error {
		// The thread that forks a traced child is its tracer.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		child, err := os.StartProcess("/proc/self/exe", []string{"lark-userns"}, &os.ProcAttr{
			Sys: &syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER,
				UidMappings: uids,
				GidMappings: gids,
				Ptrace:      true,
				Pdeathsig:   syscall.SIGKILL,
			},
		})
		if err != nil {
			return err
		}
		// Its pid is its own until Wait below, dead or alive.
		ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Pid))
		return errors.Join(err, reap(child))
	})
	if err != nil {
		if ns != nil {
			ns.Close()
		}
		return nil, fmt.Errorf("making a user namespace (%s): %w", describe(uids), classed(err))
	}
	return ns, nil
}

// reap kills a child and waits for its end, past its ptrace stop.
func reap(child *os.Process) error {
	if err := child.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_, err := child.Wait()
	return err
}

func describe(maps []syscall.SysProcIDMap) string {
	var s []string
	for _, m := range maps {
		s = append(s, fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size))
	}
	return strings.Join(s, ",")
}
