package oci

// lookup.go finds the runtime's binary, once and absolutely: a name that is
// looked up anew at each call may one day be found somewhere else (CVE-2019-5736
// is what a runtime binary in the wrong hands can do).

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/errno"
)

// defaultBinary is the runtime when options name none.
const defaultBinary = "runc"

// defaultPath serves a containerd that was started with no PATH at all. It is
// what a Debian root shell has.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookup resolves a binary's name in path. Errors name it, quoted, as it was
// given: FailedPrecondition when there is none or it cannot be executed,
// InvalidArgument for a path that is not absolute (it would be
// relative to the bundle, which is not ours to execute from).
func lookup(name, path string) (string, error) {
	if name == "" {
		name = defaultBinary
	}
	if strings.ContainsRune(name, '/') {
		if !filepath.IsAbs(name) {
			return "", lookupError(name, errors.New("neither a bare name nor an absolute path"), errdefs.ErrInvalidArgument)
		}
		if err := executable(name); err != nil {
			return "", lookupError(name, err, systemClass(err))
		}
		return name, nil
	}
	var denied error
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue // the same: relative to the bundle
		}
		candidate := filepath.Join(dir, name)
		err := executable(candidate)
		if err == nil {
			return candidate, nil
		}
		if denied == nil && !errors.Is(err, fs.ErrNotExist) {
			denied = err
		}
	}
	if denied != nil {
		return "", lookupError(name, denied, errdefs.ErrFailedPrecondition)
	}
	return "", lookupError(name, exec.ErrNotFound, errdefs.ErrFailedPrecondition)
}

func lookupError(name string, err, class error) error {
	// exec.Error prints: exec: "name": executable file not found in $PATH,
	// which clients look for.
	cause := &exec.Error{Name: name, Err: err}
	return errno.Classed(said(opLookup, "the binary"), class, cause)
}

// executable tells whether path is a regular file that somebody may execute.
func executable(path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case st.IsDir():
		return &fs.PathError{Op: "exec", Path: path, Err: syscall.EISDIR}
	case !st.Mode().IsRegular() || st.Mode().Perm()&0o111 == 0:
		return &fs.PathError{Op: "exec", Path: path, Err: fs.ErrPermission}
	}
	return nil
}

// environment is what the runtime gets: ours, without the variables by which
// systemd speaks to a service. runc takes NOTIFY_SOCKET as an order to set up
// notification for the container, and LISTEN_FDS as one to hand descriptors on. Of a
// name that stands there twice the last counts, as for os/exec.
func environment(env []string) []string {
	out := make([]string, 0, len(env)+1)
	path, last := false, make(map[string]int, len(env))
	for i, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		last[name] = i
	}
	for i, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if last[name] != i {
			continue
		}
		switch name {
		case "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID":
			continue
		case "PATH":
			if value == "" {
				continue
			}
			path = true
		}
		out = append(out, kv)
	}
	if !path {
		out = append(out, "PATH="+defaultPath)
	}
	return out
}

// pathOf returns the PATH of an environment made by environment.
func pathOf(env []string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			return v
		}
	}
	return defaultPath
}
