package stdio

// uri.go turns what a client says of a stream into a target.

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// kind is what a stream is connected to.
type kind int

const (
	kindNone     kind = iota // /dev/null
	kindPath                 // a FIFO or, for output, a file or device: fstat decides
	kindFIFO                 // fifo://
	kindFile                 // file://: made if it is not there
	kindLogger               // binary://
	kindLoggerV2             // binary-v2://: must say that it is ready
)

// target is a parsed stream.
type target struct {
	kind kind
	path string
	args []string // of a logger
}

func (t target) logger() bool { return t.kind == kindLogger || t.kind == kindLoggerV2 }

// parseTarget reads one stream: empty, an absolute path, or a URI of a known
// scheme with an absolute path and no host. A plain path is taken literally,
// percent signs and all. Errors are InvalidArgument.
func parseTarget(s string) (target, error) {
	switch {
	case s == "":
		return target{}, nil
	case strings.ContainsRune(s, 0):
		return target{}, bad(s, "contains a NUL")
	case strings.HasPrefix(s, "/"):
		return target{kind: kindPath, path: s}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return target{}, bad(s, "is not a URI")
	}
	kinds := map[string]kind{
		"fifo": kindFIFO, "file": kindFile, "binary": kindLogger, "binary-v2": kindLoggerV2,
	}
	k, ok := kinds[u.Scheme]
	if !ok {
		return target{}, bad(s, "has a scheme that is not fifo, file, binary or binary-v2")
	}
	if u.Host != "" || u.User != nil || u.Opaque != "" {
		return target{}, bad(s, "names a host")
	}
	if !filepath.IsAbs(u.Path) || strings.ContainsRune(u.Path, 0) {
		return target{}, bad(s, "has no absolute path")
	}
	t := target{kind: k, path: u.Path}
	if t.logger() {
		t.args, err = loggerArgs(u.RawQuery)
		if err != nil {
			return target{}, bad(s, "has a bad query")
		}
	}
	return t, nil
}

// loggerArgs makes a logger's arguments from a query, in its order: key and
// value by turns, of a key that comes again the first value only, a value that
// is missing as the empty string.
func loggerArgs(query string) ([]string, error) {
	var args []string
	seen := map[string]bool{}
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		k, v, _ := strings.Cut(part, "=")
		key, err := url.QueryUnescape(k)
		if err != nil {
			return nil, err
		}
		value, err := url.QueryUnescape(v)
		if err != nil {
			return nil, err
		}
		if strings.ContainsRune(key+value, 0) {
			return nil, fmt.Errorf("NUL in %q", part)
		}
		if !seen[key] {
			seen[key] = true
			args = append(args, key, value)
		}
	}
	return args, nil
}

// bad is the refusal of a stream. The text is quoted: it is a client's.
func bad(s, why string) error {
	const enough = 256
	if len(s) > enough {
		s = s[:enough]
	}
	return fmt.Errorf("stdio %q %s: %w", s, why, errdefs.ErrInvalidArgument)
}

// plan is a parsed Spec.
type plan struct {
	stdin, stdout, stderr target
	terminal              bool
	uid, gid              int
	id, namespace         string
}

// isOwner reports whether a uid or gid can be given to chown(2). An int of 32
// bits cannot hold the upper half of them, which come as negative numbers and are
// refused there.
func isOwner(id int) bool { return id >= 0 && int64(id) <= maxID }

// parse checks a Spec as a whole.
func (s Spec) parse() (plan, error) {
	p := plan{terminal: s.Terminal, uid: s.UID, gid: s.GID, id: s.ContainerID, namespace: s.Namespace}
	if !isOwner(s.UID) || !isOwner(s.GID) {
		return p, fmt.Errorf("stdio owner %d:%d is out of range: %w", s.UID, s.GID, errdefs.ErrInvalidArgument)
	}
	var err error
	for _, stream := range []struct {
		text string
		into *target
	}{{s.Stdin, &p.stdin}, {s.Stdout, &p.stdout}, {s.Stderr, &p.stderr}} {
		if *stream.into, err = parseTarget(stream.text); err != nil {
			return p, err
		}
	}
	if p.stdin.kind == kindFile || p.stdin.logger() {
		return p, bad(s.Stdin, "cannot be read from")
	}
	if s.Terminal {
		// A terminal has one output, and no other shim lets it go to a file.
		if p.stdout.kind == kindFile {
			return p, bad(s.Stdout, "cannot be used with a terminal")
		}
		p.stderr = target{}
		return p, nil
	}
	switch {
	case p.stdout.logger():
		// One logger has both streams, whatever stderr says.
		p.stderr = p.stdout
	case p.stderr.logger():
		return p, bad(s.Stderr, "is a logger for stderr alone")
	}
	return p, nil
}
