package oci

// errors.go: what a failed call looks like to the caller. The class is decided
// by how the call ended (an errno, an exit, a deadline, a state probe), never by
// what the runtime wrote; what it wrote is only the message.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"unicode/utf8"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/errno"
)

// Error is the failure of one runtime call. errors.Is sees its class (an errdefs
// error) and its cause.
type Error struct {
	// Op is the runtime's command: "create", "exec", "kill" ...
	Op string
	// Message is the last error of the runtime's log, else the end of its
	// stderr, else what the system said; at most 4 KiB.
	Message string
	// Status is the runtime's exit status (128+signal if it was killed), 0 if
	// it never ran or has not exited.
	Status uint32
	// Class is the error that clients are told: one of errdefs, or (as errdefs
	// has it) context.DeadlineExceeded or context.Canceled.
	Class error
	// Cause is the system's error, if there is one.
	Cause error
}

// prefixes are the words with which clients recognise the failed step: Docker
// derives the exit codes 126 and 127 from such texts.
var prefixes = map[string]string{
	opCreate:     "OCI runtime create failed",
	opStart:      "OCI runtime start failed",
	opExec:       "OCI runtime exec failed",
	opRestore:    "OCI runtime restore failed",
	opPause:      "OCI runtime pause failed",
	opResume:     "OCI runtime resume failed",
	opUpdate:     "OCI runtime update failed",
	opKill:       "OCI runtime kill failed",
	opDelete:     "OCI runtime delete failed",
	opPids:       "OCI runtime ps failed",
	opState:      "OCI runtime state failed",
	opCheckpoint: "OCI runtime checkpoint failed",
	opFeatures:   "OCI runtime features failed",
	opVersion:    "OCI runtime version failed",
}

// Error words the failure as clients know it: step, then reason.
func (e *Error) Error() string {
	prefix, ok := prefixes[e.Op]
	if !ok {
		prefix = "OCI runtime"
	}
	return prefix + ": " + e.Message
}

// Unwrap gives errors.Is both the class and the cause.
func (e *Error) Unwrap() []error {
	var list []error
	if e.Class != nil {
		list = append(list, e.Class)
	}
	if e.Cause != nil {
		list = append(list, e.Cause)
	}
	return list
}

// systemClass gives the errdefs class of an error of the system: what is
// exhausted may be tried again, what is missing may not.
func systemClass(err error) error {
	switch {
	case errno.Exhausted(err):
		return errdefs.ErrResourceExhausted
	case errors.Is(err, fs.ErrNotExist):
		return errdefs.ErrNotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.EISDIR),
		errors.Is(err, syscall.E2BIG):
		return errdefs.ErrFailedPrecondition
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return context.Canceled
	}
	return errdefs.ErrInternal
}

// systemError is a step of a call that failed on our side of the fork.
func systemError(op, doing string, err error) *Error {
	return &Error{Op: op, Message: clip(fmt.Sprintf("%s: %v", doing, err)), Class: systemClass(err), Cause: err}
}

// clip bounds a message, keeping its beginning: that is where the reason is. It cuts
// between characters, because a status that is not UTF-8 cannot be sent.
func clip(s string) string {
	if len(s) <= messageMax {
		return s
	}
	end := messageMax
	for end > messageMax-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + " ..."
}
