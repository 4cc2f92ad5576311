package nth

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds one life.
const patience = time.Minute

// Name is how a subtest is called that tries one errno.
func Name(errno unix.Errno) string {
	if errno == World {
		return "WORLD"
	}
	return unix.ErrnoName(errno)
}

// Rerun runs the calling test once more, as a process under supervision: there [Join] does
// not return nil, and of the subtests those run that are called as these errnos. Several
// lists run side by side. run runs a command to its end: exec.Cmd's Run, where nobody owns
// the children of this process.
func Rerun(t *testing.T, run func(*exec.Cmd) error, lists ...[]unix.Errno) {
	t.Helper()
	var wg sync.WaitGroup
	for _, errnos := range lists {
		s := Supervise(t)
		var names []string
		for _, errno := range errnos {
			names = append(names, Name(errno))
		}
		cmd := exec.Command("/proc/self/exe", "-test.v", "-test.count=1", "-test.run=^"+regexp.QuoteMeta(t.Name())+"$/^("+strings.Join(names, "|")+")$")
		cmd.Env = append(os.Environ(), s.Env())
		// A file, since an owner of children copies nothing.
		out, err := os.Create(filepath.Join(t.TempDir(), strings.Join(names, "-")))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout, cmd.Stderr = out, out
		wg.Go(func() {
			err := run(cmd)
			said, readErr := os.ReadFile(out.Name())
			if err == nil && readErr == nil && s.Joined() == 1 {
				t.Logf("%s", points(string(said)))
				return
			}
			t.Errorf("%v: %v, %v, %d joined\n%s", names, err, readErr, s.Joined(), said)
		})
	}
	wg.Wait()
}

// points are the lines in which the other process says what it has covered.
func points(out string) string {
	var kept []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, " points") {
			kept = append(kept, strings.TrimSpace(line))
		}
	}
	return strings.Join(kept, "\n")
}

// Descriptors are the open descriptors of this process, with what they are.
func Descriptors() ([]string, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var open []string
	for _, e := range entries {
		if link, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open = append(open, fmt.Sprintf("%s %s", e.Name(), link))
		}
	}
	return open, nil
}

// Opened are those descriptors that are open now and were not before. Of what was open before
// as many may be open, whatever their numbers: what is closed and opened again (as the task
// service's reserve is, row 47) gets another number if its own was taken meanwhile.
func Opened(before []string) (opened []string, err error) {
	now, err := Descriptors()
	if err != nil {
		return nil, err
	}
	known := map[string]int{}
	for _, d := range before {
		known[target(d)]++
	}
	// Those that have kept their numbers first, so that the others are the ones that are told.
	same := func(d string) bool { return slices.Contains(before, d) }
	for _, kept := range []bool{true, false} {
		for _, d := range now {
			if same(d) != kept {
				continue
			}
			if known[target(d)]--; known[target(d)] < 0 {
				opened = append(opened, d)
			}
		}
	}
	return opened, nil
}

// target is what a descriptor is, without its number.
func target(descriptor string) string {
	_, target, _ := strings.Cut(descriptor, " ")
	return target
}
