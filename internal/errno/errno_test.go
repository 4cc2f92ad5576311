package errno

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestRetry(t *testing.T) {
	answers := []error{unix.EINTR, os.NewSyscallError("dup3", unix.EINTR), unix.EBADF, nil}
	calls := 0
	call := func() error { calls++; return answers[calls-1] }
	if err := Retry(call); err != unix.EBADF || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
	if err := Retry(call); err != nil || calls != 4 {
		t.Errorf("%v after %d calls", err, calls)
	}
	calls = 0
	fd, err := RetryValue(func() (int, error) { err := call(); return 10 + calls, err })
	if fd != 13 || err != unix.EBADF || calls != 3 {
		t.Errorf("%d, %v after %d calls", fd, err, calls)
	}
}

func TestClass(t *testing.T) {
	for _, c := range []struct {
		err, want error
	}{
		{unix.EMFILE, errdefs.ErrResourceExhausted},
		{unix.EDQUOT, errdefs.ErrResourceExhausted},
		{fmt.Errorf("writing: %w", &fs.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}), errdefs.ErrResourceExhausted},
		{unix.ENOENT, errdefs.ErrFailedPrecondition},
		{unix.ESRCH, errdefs.ErrFailedPrecondition},
		{unix.ENOTDIR, errdefs.ErrFailedPrecondition},
		{unix.EROFS, errdefs.ErrPermissionDenied},
		{unix.EIO, errdefs.ErrInternal},
		{unix.EINVAL, nil},
		{errors.New("no number"), nil},
		{nil, nil},
	} {
		if got := Class(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
		if got := Exhausted(c.err); got != (c.want == errdefs.ErrResourceExhausted) {
			t.Errorf("%v: exhausted is %v", c.err, got)
		}
	}
}
