package oci

// errors.go: what a failed call looks like to the caller. The class is decided
// by how the call ended (an errno, an exit, a deadline, a state probe), never by
// what the runtime wrote; what it wrote is only the message.

import (
	"errors"
	"io/fs"
	"syscall"
	"unicode/utf8"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/errno"
)

// Error is the refusal of a runtime that ran to its end: the subject's error, and
// the only one that can say that there is no such container. What fails on
// lark's side of the fork is an [errno.Error].
type Error struct {
	// Op is the runtime's command: "create", "exec", "kill" ...
	Op string
	// Message is the last error of the runtime's log, else the end of its
	// stderr, else what the system said; at most 4 KiB.
	Message string
	// Status is the runtime's exit status (128+signal if it was killed).
	Status uint32
	// class is what a client is told.
	class error
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

// Unwrap gives errors.Is the class.
func (e *Error) Unwrap() error { return e.class }

// absent makes it NotFound. It is one of the two places that say so of a
// container (the other is package task, about an id that it does not have), and
// only for a runtime that ran and refused, and whose state was looked for.
func (e *Error) absent() {
	if refused(e) {
		e.class = errdefs.ErrNotFound
	}
}

// said puts the step before what failed, as clients know it.
func said(op, what string) string { return (&Error{Op: op, Message: clip(what)}).Error() }

// systemError is a step of a call that failed on lark's side of the fork.
func systemError(op, doing string, err error) error {
	return errno.Classed(said(op, doing), systemClass(err), err)
}

// systemClass gives the class of an error number of a fork or of a file.
func systemClass(err error) error {
	for _, cannot := range []error{
		fs.ErrNotExist, fs.ErrPermission, syscall.ENOTDIR, syscall.ESRCH, syscall.ENODEV,
		syscall.ENOEXEC, syscall.EISDIR, syscall.E2BIG, syscall.ELOOP, syscall.ETXTBSY,
	} {
		if errors.Is(err, cannot) {
			return errdefs.ErrFailedPrecondition
		}
	}
	return errdefs.ErrInternal
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
