package errno

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// F01: an error of lark's own has a class, and it is never NotFound, however it is
// made, wrapped and looked at.
func TestF01ErrorIsNeverNotFound(t *testing.T) {
	path := func(err error) error { return &os.PathError{Op: "fork/exec", Path: "/x", Err: err} }
	for name, c := range map[string]struct {
		err     error
		class   error
		missing bool
	}{
		"ENOENT":                    {New("x", path(unix.ENOENT)), errdefs.ErrFailedPrecondition, true},
		"ESRCH":                     {New("x", unix.ESRCH), errdefs.ErrFailedPrecondition, true},
		"ENOTDIR":                   {New("x", unix.ENOTDIR), errdefs.ErrFailedPrecondition, false},
		"EMFILE":                    {Classed("x", errdefs.ErrInvalidArgument, path(unix.EMFILE)), errdefs.ErrResourceExhausted, false},
		"no class":                  {New("x", unix.EINVAL), errdefs.ErrInternal, false},
		"the caller's":              {Classed("x", errdefs.ErrInvalidArgument, unix.ELOOP), errdefs.ErrInvalidArgument, false},
		"the cause's":               {Classed("x", errdefs.ErrInternal, context.DeadlineExceeded), context.DeadlineExceeded, false},
		"NotFound asked for":        {Classed("x", errdefs.ErrNotFound, unix.EINVAL), errdefs.ErrFailedPrecondition, false},
		"NotFound within":           {Classed("x", errdefs.ErrInternal, fmt.Errorf("y: %w", errdefs.ErrNotFound)), errdefs.ErrInternal, false},
		"nothing found":             {Missing("no cgroup"), errdefs.ErrFailedPrecondition, true},
		"what is always there":      {Unexpected("x", unix.ENOENT), errdefs.ErrInternal, false},
		"out of descriptors for it": {Unexpected("x", unix.EMFILE), errdefs.ErrResourceExhausted, false},
		"another one within":        {New("x", Unexpected("y", unix.ENOENT)), errdefs.ErrInternal, false},
	} {
		for _, err := range []error{c.err, fmt.Errorf("wrapped: %w", c.err), errors.Join(errors.New("z"), c.err)} {
			if got := errdefs.Resolve(err); got != c.class {
				t.Errorf("%s: class %v, want %v", name, got, c.class)
			}
			if errdefs.IsNotFound(err) || errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("%s: NotFound", name)
			}
			if IsMissing(err) != c.missing || errors.Is(err, ErrMissing) != c.missing {
				t.Errorf("%s: missing is %v", name, !c.missing)
			}
		}
	}
}

// What is no class is found in the cause, as in any other error.
func TestErrorShowsItsCause(t *testing.T) {
	err := New("opening", &os.PathError{Op: "open", Path: "/x", Err: unix.ENOENT})
	var perr *os.PathError
	if !errors.Is(err, unix.ENOENT) || !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &perr) || perr.Path != "/x" {
		t.Errorf("%v does not show its cause", err)
	}
	if got := err.Error(); got != "opening: open /x: no such file or directory" {
		t.Errorf("it says %q", got)
	}
	if New("x", nil) != nil || Classed("x", errdefs.ErrInternal, nil) != nil || Unexpected("x", nil) != nil {
		t.Error("no error is one")
	}
	if !IsMissing(unix.ESRCH) || IsMissing(unix.EIO) || IsMissing(nil) {
		t.Error("a bare number is taken for something else")
	}
}
