// Package vanish takes parts of the world away from a program under test and
// brings them back: the file of a program, a directory, a cgroup. It says what
// may be answered meanwhile: that the world is not as it should be, and never
// that something which lives is not there (F01, FAULTS.md).
//
// The package is for tests alone.
package vanish

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// patience bounds the wait for a cgroup to become empty.
const patience = time.Minute

// suffix is added to the name of what is away.
const suffix = ".vanished"

// Thing is a part of the world that can vanish.
type Thing struct {
	Name string
	// away takes it away and returns what brings it back.
	away func() (back func() error, err error)
}

// Path is a file or a directory. It is renamed, so that what is open in it
// stays open, as when a package is upgraded or a directory is moved. A thing
// that is not there has vanished already, and nothing brings it back.
func Path(name, path string) Thing {
	return Thing{name, func() (func() error, error) {
		err := os.Rename(path, path+suffix)
		if errors.Is(err, fs.ErrNotExist) {
			return func() error { return nil }, nil
		}
		return func() error { return comeBack(path) }, err
	}}
}

// comeBack undoes the renaming. What was made in the meantime under the old
// name gives way, unless it is a directory with something in it.
func comeBack(path string) error {
	if fi, err := os.Lstat(path); err == nil && !fi.IsDir() {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	err := os.Rename(path+suffix, path)
	if errors.Is(err, fs.ErrNotExist) { // it was removed with what it was in
		return nil
	}
	return err
}

// Group is a cgroup, with its directory in each hierarchy. Its processes are
// moved to the root of the hierarchy, and it is removed; it comes back with
// those of them that live.
func Group(name string, dirs ...string) Thing {
	return Thing{name, func() (func() error, error) {
		members := make(map[string][]string)
		for _, dir := range dirs {
			pids, err := os.ReadFile(dir + "/cgroup.procs")
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			members[dir] = strings.Fields(string(pids))
			for _, pid := range members[dir] {
				if err := join(filepath.Dir(filepath.Dir(dir)), pid); err != nil {
					return nil, err
				}
			}
			if err := remove(dir); err != nil {
				return nil, err
			}
		}
		return func() error {
			for dir, pids := range members {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return err
				}
				for _, pid := range pids {
					if err := join(dir, pid); err != nil {
						return err
					}
				}
				// Without a process it is a leftover, and nothing has made it.
				if err := unix.Rmdir(dir); err != nil && err != unix.EBUSY {
					return err
				}
			}
			return nil
		}, nil
	}}
}

// join moves a process, if it is there, into a cgroup.
func join(dir, pid string) error {
	err := os.WriteFile(dir+"/cgroup.procs", []byte(pid), 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// remove removes a cgroup that is, or becomes, empty.
func remove(dir string) error {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := unix.Rmdir(dir)
		if err != unix.EBUSY && err != unix.EINTR || time.Now().After(end) {
			return err
		}
	}
}

// Away takes the thing away and returns what brings it back, which happens at
// the end of the test at the latest.
func (th Thing) Away(t testing.TB) (back func()) {
	t.Helper()
	undo, err := th.away()
	if err != nil {
		t.Fatalf("%s does not vanish: %v", th.Name, err)
	}
	done := false
	back = func() {
		if done {
			return
		}
		done = true
		if err := undo(); err != nil {
			t.Errorf("%s does not come back: %v", th.Name, err)
		}
	}
	t.Cleanup(back)
	return back
}

// Judge holds an answer against the rule: NotFound only of what does not live.
// Everything else that is wrong with the world may be said, but not Unknown, by
// which a client can decide nothing.
func Judge(t testing.TB, at, call string, lives bool, err error) {
	t.Helper()
	switch {
	case err == nil:
	case lives && errdefs.IsNotFound(err):
		t.Errorf("%s: %s answered NotFound of what lives: %v", at, call, err)
	}
}
