// Package tempdir makes temporary directories where the environment says, or
// elsewhere: a shim runs for months, and the directory that XDG_RUNTIME_DIR or
// TMPDIR named at its start may be gone, full or read-only by now.
package tempdir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
)

// Parents lists the directories to try, in order: those preferred, $TMPDIR, /tmp
// and /run. Empty and relative ones are left out: the working directory is a
// client's.
func Parents(preferred ...string) []string {
	var parents []string
	for _, dir := range append(preferred, os.Getenv("TMPDIR"), "/tmp", "/run") {
		if filepath.IsAbs(dir) && !slices.Contains(parents, filepath.Clean(dir)) {
			parents = append(parents, filepath.Clean(dir))
		}
	}
	return parents
}

// Make makes a directory (0700) in the first of the Parents that takes one, with a
// name as by [os.MkdirTemp]. The error joins those of all.
func Make(pattern string) (string, error) {
	return First(Parents(), func(parent string) (string, error) { return os.MkdirTemp(parent, pattern) })
}

// First returns what try returns for the first of the parents that it does not fail
// for. The error joins those of all.
func First[T any](parents []string, try func(parent string) (T, error)) (T, error) {
	var none T
	var errs []error
	for _, parent := range parents {
		made, err := try(parent)
		if err == nil {
			return made, nil
		}
		errs = append(errs, err)
	}
	return none, errors.Join(errs...)
}
