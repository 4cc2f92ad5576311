// Package errno is what packages that ask the kernel share: calls that a signal interrupts are
// made again, and an error number has a class that a client of the task API can act upon. [Error] carries
// it, and can never carry NotFound, the class of a container that is not there.
//
// Package children does both by itself, because it depends on nothing of lark's.
package errno

import (
	"errors"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Retry makes a call again for as long as a signal interrupts it. The Go runtime preempts its
// threads by signals, and some file systems let those interrupt calls that signal(7) does not name.
func Retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// RetryValue is Retry for a call that returns a value, which is that of the last time.
func RetryValue[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// missing has the numbers that say that something is not there: a file, a process, a
// cgroup that was removed while its file was open.
var missing = []unix.Errno{unix.ENOENT, unix.ESRCH, unix.ENODEV}

// classes has the numbers that mean the same wherever they come from, see errno(3).
var classes = []struct {
	class   error
	numbers []unix.Errno
}{
	// What is exhausted may be tried again.
	{errdefs.ErrResourceExhausted, []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOSPC, unix.EDQUOT, unix.EAGAIN}},
	// Never NotFound: the number speaks of a file or a process of the host.
	{errdefs.ErrFailedPrecondition, append([]unix.Errno{unix.ENOTDIR}, missing...)},
	{errdefs.ErrPermissionDenied, []unix.Errno{unix.EACCES, unix.EPERM, unix.EROFS}},
	{errdefs.ErrInternal, []unix.Errno{unix.EIO}},
}

// Class is the errdefs class of an error of the kernel. It is nil where the number alone does not
// tell, and for an error that has none: what that means, the caller knows.
func Class(err error) error {
	for _, c := range classes {
		for _, n := range c.numbers {
			if errors.Is(err, n) {
				return c.class
			}
		}
	}
	return nil
}

// Exhausted reports whether something has run out, so that the same may be tried again.
func Exhausted(err error) bool { return Class(err) == errdefs.ErrResourceExhausted }
