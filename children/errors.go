package children

import (
	"errors"
	"fmt"
	"os/exec"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Why a Claim was refused. A [ClaimError] matches exactly one of them under errors.Is.
var (
	// ErrBadPid: a number that is nobody's: negative, 0, 1, or this program's own.
	ErrBadPid = errors.New("pid out of question")
	// ErrNotChild: there is no such process, or it is not a child of this program (a stranger, or still the runtime's).
	ErrNotChild = errors.New("not a child of this process")
	// ErrClaimed: it is a child that is known already: claimed before, or forked by this program itself.
	ErrClaimed = errors.New("already claimed")
	// ErrTooOld: it began before the window did.
	ErrTooOld = errors.New("began before the window")
	// ErrWrongNamespace: it lives in another pid namespace than the window's container.
	ErrWrongNamespace = errors.New("in another pid namespace")
	// ErrWindowClosed: the window had ended.
	ErrWindowClosed = errors.New("window closed")
)

var (
	// ErrClosed: the Owner was closed. It matches errdefs.ErrUnavailable.
	ErrClosed = fmt.Errorf("owner of children closed: %w", errdefs.ErrUnavailable)
	// ErrSecondOwner: this program has an Owner already, which is not closed. It
	// matches errdefs.ErrFailedPrecondition.
	ErrSecondOwner = fmt.Errorf("this program has an owner of children already: %w", errdefs.ErrFailedPrecondition)
	// ErrLost: somebody else in this program has reaped the process, so that its exit status is not known and never will
	// be. It matches errdefs.ErrInternal, since it is a fault of the program.
	ErrLost = fmt.Errorf("reaped by somebody else, exit status lost: %w", errdefs.ErrInternal)
)

// ClaimError says why a pid was not accepted. Nothing was signalled. It matches its Reason (one of the Err values above,
// or the kernel's error if the proof itself could not be made) and one class of errdefs: FailedPrecondition if the
// window was closed, ResourceExhausted if descriptors or memory ran out, else Internal: the runtime told a lie.
type ClaimError struct {
	Pid    int
	Reason error
}

func (e *ClaimError) Error() string { return fmt.Sprintf("claim pid %d: %v", e.Pid, e.Reason) }

// Unwrap gives the reason and the class.
func (e *ClaimError) Unwrap() []error {
	switch {
	case errors.Is(e.Reason, ErrWindowClosed):
		return []error{e.Reason, errdefs.ErrFailedPrecondition}
	default:
		return []error{e.Reason, classOf(e.Reason)}
	}
}

// classOf gives the errdefs class of an error of the kernel: ResourceExhausted or Internal. It is never NotFound: a file
// or a number that is not there says nothing about the process that the caller asked about.
func classOf(err error) error {
	for _, exhausted := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN, unix.ENOSPC} {
		if errors.Is(err, exhausted) {
			return errdefs.ErrResourceExhausted
		}
	}
	return errdefs.ErrInternal
}

// classOfPath is classOf for a path that the caller has given: FailedPrecondition where nothing usable is there.
func classOfPath(err error) error {
	for _, unusable := range []error{unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ENOEXEC, unix.EISDIR, exec.ErrNotFound} {
		if errors.Is(err, unusable) {
			return errdefs.ErrFailedPrecondition
		}
	}
	return classOf(err)
}

// classedPath is classed for a path that the caller has given.
func classedPath(what string, err error) error {
	return fmt.Errorf("%s: %w: %w", what, classOfPath(err), err)
}

// classed wraps an error of the kernel with what was tried and with its class.
func classed(what string, err error) error {
	return fmt.Errorf("%s: %w: %w", what, classOf(err), err)
}
