package bundle

import (
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// ContainerID names a container. The zero value is no container; only
// [ParseContainerID] makes others.
type ContainerID struct{ s string }

// ExecID names an additional process of a container. The zero value stands for
// the container's init, as the empty exec id does in the task API; only
// [ParseExecID] makes others.
type ExecID struct{ s string }

// Namespace is a containerd namespace, the scope in which container ids are
// unique. Only [ParseNamespace] makes one.
type Namespace struct{ s string }

// ParseContainerID refuses, with InvalidArgument, whatever containerd would not
// take as an identifier: see [checkIdentifier].
func ParseContainerID(s string) (ContainerID, error) {
	if err := checkIdentifier("container id", s); err != nil {
		return ContainerID{}, err
	}
	return ContainerID{s}, nil
}

// ParseExecID refuses, with InvalidArgument, what is no identifier. The empty
// string is refused too: a caller for whom it means init says so by not calling.
func ParseExecID(s string) (ExecID, error) {
	if err := checkIdentifier("exec id", s); err != nil {
		return ExecID{}, err
	}
	return ExecID{s}, nil
}

// ParseNamespace refuses, with InvalidArgument, what is no identifier.
func ParseNamespace(s string) (Namespace, error) {
	if err := checkIdentifier("namespace", s); err != nil {
		return Namespace{}, err
	}
	return Namespace{s}, nil
}

func (id ContainerID) String() string { return id.s }

func (id ExecID) String() string { return id.s }

func (n Namespace) String() string { return n.s }

// IsInit reports whether the id stands for the container's init.
func (id ExecID) IsInit() bool { return id.s == "" }

// pidFile is the name of the process's pid file in the bundle. The prefix keeps
// an exec called "init" away from init.pid, and every exec away from every
// other file of the bundle: none of those begins with it.
func (id ExecID) pidFile() string {
	if id.IsInit() {
		return initPIDFile
	}
	return execPIDPrefix + id.s + ".pid"
}

// Sibling is the bundle directory of another container of the same namespace,
// given this one's: containerd keeps all bundles of a namespace side by side.
func (id ContainerID) Sibling(bundlePath string) string {
	return filepath.Join(filepath.Dir(bundlePath), id.s)
}

// checkIdentifier is containerd's rule: runs of ASCII letters and digits joined
// by single dots, dashes or underscores, at most 76 bytes. It leaves out path
// separators, "..", a leading dash (which a runtime would take for a flag),
// control characters and everything that only looks like ASCII.
func checkIdentifier(what, s string) error {
	if s == "" {
		return fmt.Errorf("%s is empty: %w", what, errdefs.ErrInvalidArgument)
	}
	if len(s) > maxIDLength {
		return fmt.Errorf("%s of %d bytes is longer than %d: %w", what, len(s), maxIDLength, errdefs.ErrInvalidArgument)
	}
	separated := true // as if one came before the first byte, which must be alphanumeric
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			separated = false
		case (c == '.' || c == '-' || c == '_') && !separated:
			separated = true
		default:
			return fmt.Errorf("%s %q is no identifier (at byte %d): %w", what, s, i, errdefs.ErrInvalidArgument)
		}
	}
	if separated {
		return fmt.Errorf("%s %q ends with a separator: %w", what, s, errdefs.ErrInvalidArgument)
	}
	return nil
}
