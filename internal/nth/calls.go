package nth

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What a fault can be. Each call of the table names those that it can really end with.
const (
	emfile = unix.EMFILE
	enospc = unix.ENOSPC
	eagain = unix.EAGAIN
	eio    = unix.EIO
	eintr  = unix.EINTR
)

// Errnos are the faults, in the order of their tables.
var Errnos = []unix.Errno{emfile, enospc, eagain, eio, eintr}

// none stands for an argument that a call does not have.
const none = -1

// call is a system call that can be made to fail. close(2) is none of them: whatever it
// answers, the descriptor is gone, and an answer without the call would leak it. Nor is
// connect(2): what it was interrupted in goes on without it.
type call struct {
	name   string
	nr     uint32
	fd     int // which argument is the descriptor that it works on
	path   int // which argument is a path
	errnos []unix.Errno
}

var calls = append([]call{
	{"openat", unix.SYS_OPENAT, none, 1, []unix.Errno{emfile, enospc, eio, eintr}},
	{"open_tree", unix.SYS_OPEN_TREE, none, 1, []unix.Errno{emfile, eio}},
	{"pipe2", unix.SYS_PIPE2, none, none, []unix.Errno{emfile}},
	{"memfd_create", unix.SYS_MEMFD_CREATE, none, 0, []unix.Errno{emfile}},
	{"pidfd_open", unix.SYS_PIDFD_OPEN, none, none, []unix.Errno{emfile}},
	{"socket", unix.SYS_SOCKET, none, none, []unix.Errno{emfile}},
	{"accept4", unix.SYS_ACCEPT4, 0, none, []unix.Errno{emfile, eintr}},
	{"dup", unix.SYS_DUP, 0, none, []unix.Errno{emfile}},
	{"dup3", unix.SYS_DUP3, 0, none, []unix.Errno{eintr}},
	{"fcntl", unix.SYS_FCNTL, 0, none, []unix.Errno{emfile}},
	{"inotify_init1", unix.SYS_INOTIFY_INIT1, none, none, []unix.Errno{emfile}},
	{"eventfd2", unix.SYS_EVENTFD2, none, none, []unix.Errno{emfile}},
	{"inotify_add_watch", unix.SYS_INOTIFY_ADD_WATCH, 0, 1, []unix.Errno{enospc}},
	{"clone", unix.SYS_CLONE, none, none, []unix.Errno{eagain}},
	{"read", unix.SYS_READ, 0, none, []unix.Errno{eio, eintr}},
	{"pread64", unix.SYS_PREAD64, 0, none, []unix.Errno{eio, eintr}},
	{"write", unix.SYS_WRITE, 0, none, []unix.Errno{enospc, eio, eintr}},
	{"pwrite64", unix.SYS_PWRITE64, 0, none, []unix.Errno{enospc, eio, eintr}},
	{"splice", unix.SYS_SPLICE, 0, none, []unix.Errno{eio, eintr}},
	{"getdents64", unix.SYS_GETDENTS64, 0, none, []unix.Errno{eio}},
	{"fstat", unix.SYS_FSTAT, 0, none, []unix.Errno{eio}},
	{"readlinkat", unix.SYS_READLINKAT, none, 1, []unix.Errno{eio}},
	{"unlinkat", unix.SYS_UNLINKAT, none, 1, []unix.Errno{eio}},
	{"mkdirat", unix.SYS_MKDIRAT, none, 1, []unix.Errno{enospc, eio}},
	{"renameat", unix.SYS_RENAMEAT, none, 1, []unix.Errno{enospc, eio}},
	{"symlinkat", unix.SYS_SYMLINKAT, none, 0, []unix.Errno{enospc, eio}},
	{"fchmod", unix.SYS_FCHMOD, 0, none, []unix.Errno{eio}},
	{"fchmodat", unix.SYS_FCHMODAT, none, 1, []unix.Errno{eio}},
	{"fchown", unix.SYS_FCHOWN, 0, none, []unix.Errno{eio}},
	{"mount", unix.SYS_MOUNT, none, 1, []unix.Errno{enospc, eio}},
	{"umount2", unix.SYS_UMOUNT2, none, 0, []unix.Errno{eio, eintr}},
	{"bind", unix.SYS_BIND, 0, none, []unix.Errno{enospc, eio}},
	{"flock", unix.SYS_FLOCK, 0, none, []unix.Errno{eagain, eintr}},
	{"waitid", unix.SYS_WAITID, none, none, []unix.Errno{eintr}},
}, archCalls...)

// find is the call of a number.
func find(nr uint32) (call, bool) {
	i := slices.IndexFunc(calls, func(c call) bool { return c.nr == nr })
	if i < 0 {
		return call{}, false
	}
	return calls[i], true
}

// fits says whether the call, with these arguments, can end with the errno. on is what its
// descriptor is, as /proc has it.
func (c call) fits(errno unix.Errno, args [6]uint64, on string) bool {
	if !slices.Contains(c.errnos, errno) && !c.ofWorld(errno, on) {
		return false
	}
	switch c.nr {
	case unix.SYS_CLONE:
		// A thread is the Go runtime's, which dies without one: that is row 48's own test.
		return args[0]&unix.CLONE_THREAD == 0
	case unix.SYS_FCNTL:
		return args[1] == unix.F_DUPFD_CLOEXEC
	case unix.SYS_OPENAT:
		return errno != enospc || args[2]&unix.O_CREAT != 0
	case unix.SYS_READ, unix.SYS_WRITE, unix.SYS_PREAD64, unix.SYS_PWRITE64:
		if strings.HasPrefix(on, "anon_inode:[event") {
			return false // how the Go runtime wakes its poller; it dies if it cannot
		}
		// A pipe or a socket has no device that could fail or be full.
		return errno == eintr || strings.HasPrefix(on, "/")
	}
	return true
}
