package stdio

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// F08: devices are taken for output, by file:// and by a plain path. What /dev/full
// refuses is counted as lost, and the process does not notice.
func TestF08Devices(t *testing.T) {
	for device, lost := range map[string]uint64{"/dev/null": 0, "/dev/zero": 0, "/dev/full": 10} {
		for _, scheme := range []string{"", "file://"} {
			r := newRig(t)
			r.open(Spec{Stdout: scheme + device, Stderr: scheme + device})
			r.run(fmt.Sprintf("echo four; echo four >&2; echo $? >%s", r.path("status")))
			if err := r.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			r.Close()
			if got, status := r.Lost(), r.content("status"); got != lost || status != "0\n" {
				t.Errorf("%s%s: %d bytes lost, want %d; status %q", scheme, device, got, lost, status)
			}
		}
	}
}

// F08: a link in the last element of a log's path is followed, and where it points
// to nothing the log is made there.
func TestF08Links(t *testing.T) {
	r := newRig(t)
	made := r.path("made")
	if err := os.WriteFile(made, []byte("old\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"there": made, "relative": "made", "nothing": "later/log", "twice": "nothing",
		"device": "/dev/null", "fifo": r.fifo("a-fifo"),
	} {
		if err := os.Symlink(to, r.path(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(r.dir, r.path("here")); err != nil {
		t.Fatal(err)
	}
	for _, stdout := range []string{
		"file://" + r.path("there"), r.path("there"), "file://" + r.path("relative"),
		"file://" + r.path("twice"), "file://" + r.path("nothing"), "file://" + r.path("here/new/log"),
		"file://" + r.path("device"), r.path("device"), r.path("fifo"),
	} {
		if err := r.try(Spec{Stdout: stdout}); err != nil {
			t.Errorf("%s: %v", stdout, err)
			continue
		}
		r.run("echo more")
		if err := r.Drain(t.Context()); err != nil {
			t.Errorf("%s: %v", stdout, err)
		}
		r.Close()
	}
	for path, want := range map[string]string{
		"made": "old\nmore\nmore\nmore\n", "later/log": "more\nmore\n", "new/log": "more\n",
	} {
		if got := r.content(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	for path, mode := range map[string]os.FileMode{"later/log": 0o644, "made": 0o640} {
		if st, err := os.Stat(filepath.Join(r.dir, path)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
}
