package ttrpc

import (
	"context"
	"strings"

	"github.com/containerd/errdefs"
)

// Code is the code of a Status, a google.rpc.Code.
type Code int32

// The codes of google.rpc.Code.
const (
	OK Code = iota
	Canceled
	Unknown
	InvalidArgument
	DeadlineExceeded
	NotFound
	AlreadyExists
	PermissionDenied
	ResourceExhausted
	FailedPrecondition
	Aborted
	OutOfRange
	Unimplemented
	Internal
	Unavailable
	DataLoss
	Unauthenticated
)

// Status is the google.rpc.Status of an answer, and the error of a call that
// was answered with one.
type Status struct {
	Code    Code
	Message string
	Details []Detail
}

// Detail is a google.protobuf.Any.
type Detail struct {
	TypeURL string
	Value   []byte
}

// KeyValue is one entry of the metadata of a request.
type KeyValue struct{ Key, Value string }

// statusURL is the type of a detail that is itself a Status.
const statusURL = "type.googleapis.com/google.rpc.Status"

// Error is the text that package errgrpc of errdefs gives such an error: the
// message, with the class where it has none or cannot carry one.
func (s *Status) Error() string {
	class := s.Unwrap()
	text := class.Error()
	switch {
	case s.Message == "":
		return text
	case class != context.Canceled && class != context.DeadlineExceeded, s.endsWith(text):
		return s.Message
	}
	return s.Message + ": " + text
}

// endsWith reports whether the message ends with the name of a class.
func (s *Status) endsWith(class string) bool {
	return s.Message == class || strings.HasSuffix(s.Message, ": "+class)
}

// Unwrap is the class of the error: one of errdefs, context.Canceled or
// context.DeadlineExceeded. Conflict and NotModified have the code of
// FailedPrecondition, and are known by the end of the message.
func (s *Status) Unwrap() error {
	switch s.Code {
	case FailedPrecondition:
		for _, class := range []error{errdefs.ErrConflict, errdefs.ErrNotModified} {
			if s.endsWith(class.Error()) {
				return class
			}
		}
		return errdefs.ErrFailedPrecondition
	default:
		return s.Code.class()
	}
}

func (c Code) class() error {
	switch c {
	case Canceled:
		return context.Canceled
	case InvalidArgument:
		return errdefs.ErrInvalidArgument
	case DeadlineExceeded:
		return context.DeadlineExceeded
	case NotFound:
		return errdefs.ErrNotFound
	case AlreadyExists:
		return errdefs.ErrAlreadyExists
	case PermissionDenied:
		return errdefs.ErrPermissionDenied
	case ResourceExhausted:
		return errdefs.ErrResourceExhausted
	case FailedPrecondition:
		return errdefs.ErrFailedPrecondition
	case Aborted:
		return errdefs.ErrAborted
	case OutOfRange:
		return errdefs.ErrOutOfRange
	case Unimplemented:
		return errdefs.ErrNotImplemented
	case Internal:
		return errdefs.ErrInternal
	case Unavailable:
		return errdefs.ErrUnavailable
	case DataLoss:
		return errdefs.ErrDataLoss
	case Unauthenticated:
		return errdefs.ErrUnauthenticated
	}
	return errdefs.ErrUnknown
}

func codeOf(err error) Code {
	class := errdefs.Resolve(err)
	if class == errdefs.ErrConflict || class == errdefs.ErrNotModified {
		return FailedPrecondition
	}
	for c := Canceled; c <= Unauthenticated; c++ {
		if c.class() == class {
			return c
		}
	}
	return Unknown
}

// StatusOf is the status with which an error is answered, nil for nil; a
// *Status is itself. The classes of joined errors other than the first become
// details, as package errgrpc of errdefs makes them and reads them. Texts are
// cut to a bound and made UTF-8, without which no client could read them.
func StatusOf(err error) *Status {
	if err == nil {
		return nil
	}
	if s, ok := err.(*Status); ok && s.Code != OK && s.Message == plain(s.Message) {
		return s
	}
	s := &Status{Code: codeOf(err), Message: plain(err.Error())}
	s.Details = details(nil, err, false)
	size := 0
	for _, d := range s.Details {
		size += len(d.Value)
	}
	if size > MaxText {
		s.Details = nil
	}
	return s
}

// details appends those of an error: its innermost errors, but for the first
// where that is what the status itself is of.
func details(to []Detail, err error, first bool) []Detail {
	switch e := err.(type) {
	case nil:
		return to
	case interface{ Unwrap() error }:
		return details(to, e.Unwrap(), first)
	case interface{ Unwrap() []error }:
		for i, inner := range e.Unwrap() {
			to = details(to, inner, first || i > 0)
		}
		return to
	}
	if !first {
		return to
	}
	leaf := Status{Code: codeOf(err), Message: plain(err.Error())}
	return append(to, Detail{TypeURL: statusURL, Value: leaf.append(nil)})
}

// plain cuts a text to the bound and makes it UTF-8.
func plain(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), MaxText)], "?")
}
