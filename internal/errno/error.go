package errno

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
)

// ErrMissing marks the failure of a look-up on the host: a file, a program, a
// cgroup or a process with a given number is not there. Its class is
// FailedPrecondition. It says nothing about a container, and so it is never
// errdefs.ErrNotFound, which orders a client to forget the container.
var ErrMissing error = &Error{doing: "missing", class: errdefs.ErrFailedPrecondition, missing: true}

// Error is a failure of lark's own work or of the host: a fork, a file, a
// cgroup, a look-up. Its class is what the error number says, and is never
// NotFound, whatever the cause is.
//
// It has no Unwrap method: errors.Is, errors.As and errdefs.Resolve see the
// class of the Error, and of the cause only what is not a class.
type Error struct {
	doing   string
	class   error
	err     error
	missing bool
}

// New describes an error of the kernel, or of a call that returns such errors.
// It is nil for nil. An error number that tells no class is Internal.
func New(doing string, err error) error {
	class := Class(err)
	if class == nil {
		class = errdefs.ErrInternal
	}
	return Classed(doing, class, err)
}

// Classed is New where the caller knows the class. The class of something that
// is exhausted, or that is missing, and a class that the cause has already,
// come before the given one. NotFound becomes FailedPrecondition.
func Classed(doing string, class, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{doing: doing, class: class, err: err, missing: IsMissing(err)}
	own := errdefs.Resolve(err)
	switch {
	case Exhausted(err):
		e.class = errdefs.ErrResourceExhausted
	case own != errdefs.ErrUnknown && own != errdefs.ErrNotFound:
		e.class = own
	}
	if e.class == errdefs.ErrNotFound {
		e.class = errdefs.ErrFailedPrecondition
	}
	return e
}

// Missing is the error of a look-up that found nothing, without an error
// number.
func Missing(what string) error {
	return &Error{doing: what, class: errdefs.ErrFailedPrecondition, missing: true}
}

// Unexpected describes the absence of something that is always there, such as
// the caller's own entry in /proc. It is Internal, and not missing: the caller
// knows no more than before it asked.
func Unexpected(doing string, err error) error {
	if err == nil {
		return nil
	}
	e := Classed(doing, errdefs.ErrInternal, err).(*Error)
	if e.missing {
		e.missing, e.class = false, errdefs.ErrInternal
	}
	return e
}

// IsMissing reports whether an error says that something of the host is not
// there: an [Error], or where there is none an error number.
func IsMissing(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.missing
	}
	for _, n := range missing {
		if errors.Is(err, n) {
			return true
		}
	}
	return false
}

func (e *Error) Error() string {
	switch {
	case e.err == nil:
		return e.doing
	case e.doing == "":
		return e.err.Error()
	}
	return e.doing + ": " + e.err.Error()
}

// Is reports whether target is the class of the error, ErrMissing, or, for what
// is no class, in the cause.
func (e *Error) Is(target error) bool {
	switch {
	case target == ErrMissing:
		return e.missing
	case isClass(target):
		return target == e.class
	}
	return errors.Is(e.err, target)
}

// As finds the cause.
func (e *Error) As(target any) bool { return errors.As(e.err, target) }

// isClass reports whether an error is one of those by which clients decide.
func isClass(err error) bool {
	switch err {
	case errdefs.ErrUnknown, errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrAlreadyExists,
		errdefs.ErrPermissionDenied, errdefs.ErrResourceExhausted, errdefs.ErrFailedPrecondition,
		errdefs.ErrConflict, errdefs.ErrNotModified, errdefs.ErrAborted, errdefs.ErrOutOfRange,
		errdefs.ErrNotImplemented, errdefs.ErrInternal, errdefs.ErrUnavailable, errdefs.ErrDataLoss,
		errdefs.ErrUnauthenticated, context.DeadlineExceeded, context.Canceled:
		return true
	}
	return false
}
