package children

import (
	"fmt"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// PIDNamespace says in which pid namespace the processes of a container live. All windows of one container are begun
// with the same value, so that what one learns the others know. It may be used by any goroutine.
type PIDNamespace struct {
	// ino is the inode of the namespace in nsfs; 0 as long as it is not known.
	ino atomic.Uint64
	// shared says that others may live in it as well.
	shared atomic.Bool
}

// OwnNamespace is this program's own pid namespace: that of a container that shares the host's.
func (o *Owner) OwnNamespace() *PIDNamespace { return o.own }

// NewNamespace is one that the runtime is about to make. It is learnt when the container's init is claimed.
func NewNamespace() *PIDNamespace { return new(PIDNamespace) }

// NamespaceAt is an existing one that the container joins, such as /proc/PID/ns/pid of another container's init, or a
// bind mount of that. FailedPrecondition if there is nothing at path, InvalidArgument if it is no pid namespace.
func NamespaceAt(path string) (*PIDNamespace, error) {
	fd, err := openNamespace(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWPID {
		return nil, fmt.Errorf("%q is no pid namespace: %w", path, errdefs.ErrInvalidArgument)
	}
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return nil, classedPath(fmt.Sprintf("pid namespace %q", path), err)
	}
	n := new(PIDNamespace)
	n.ino.Store(st.Ino)
	n.shared.Store(true)
	return n, nil
}

// openNamespace opens a file of nsfs, and nothing else: an ioctl means other things to other files.
func openNamespace(path string) (int, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		return err
	})
	if err != nil {
		return -1, classedPath(fmt.Sprintf("pid namespace %q", path), err)
	}
	var fs unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &fs) }); err != nil || fs.Type != unix.NSFS_MAGIC {
		unix.Close(fd)
		return -1, fmt.Errorf("%q is no namespace: %w", path, errdefs.ErrInvalidArgument)
	}
	return fd, nil
}

// Shared says whether processes outlive the container's init: only in a namespace of the container's own does the kernel
// kill them with it. So it is false for a NewNamespace only, and true even for that once the runtime was seen to have
// put init into our own.
func (n *PIDNamespace) Shared() bool { return n.shared.Load() }

// learn keeps what the claim of the container's init has shown.
func (n *PIDNamespace) learn(ino uint64, shared bool) {
	n.shared.Store(shared || n.shared.Load())
	n.ino.Store(ino)
}
