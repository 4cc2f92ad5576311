package nth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// scenario makes four calls that can fail with EIO in this process, and many in another.
func scenario(context.Context) error {
	fd, err := unix.Open("/etc/passwd", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("internal %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if _, err := unix.Read(fd, make([]byte, 1)); err != nil {
		return err
	}
	_, err = unix.Pread(fd, make([]byte, 1), 0)
	return err
}

// The fault that is asked for happens, at the call that is meant, and is told of as it was;
// one that is not reached does not.
func TestTheNthCallFails(t *testing.T) {
	w, err := Join()
	if err != nil {
		t.Fatal(err)
	}
	if w == nil {
		Rerun(t, (*exec.Cmd).Run, []unix.Errno{eio})
		return
	}
	t.Run(Name(eio), func(t *testing.T) {
		for i, name := range []string{"openat /etc/passwd", "fstat /etc/passwd", "read /etc/passwd", "pread64 /etc/passwd", ""} {
			if err := w.Arm(Fault{N: i + 1, Errno: eio}); err != nil {
				t.Fatal(err)
			}
			told := scenario(t.Context())
			r, err := w.Disarm()
			if err != nil {
				t.Fatal(err)
			}
			if failed := name != ""; errors.Is(told, eio) != failed || r.Failed != name || r.Faults > 0 != failed || r.Calls < min(i+1, 4) {
				t.Errorf("call %d: told was %v, report %+v, want %q", i+1, told, r, name)
			}
		}
		// The other process makes calls, too, and none of them counts.
		file := t.TempDir() + "/x"
		if err := w.Arm(Fault{N: 1, Every: 1, Errno: enospc}); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("sh", "-c", "echo x >"+file+" && echo done").Output()
		r, derr := w.Disarm()
		if err := errors.Join(err, derr); err != nil || strings.TrimSpace(string(out)) != "done" {
			t.Errorf("%q, %v, report %+v", out, err, r)
		}
		t.Log("points")
	})
}

// What leaks is seen.
func TestOpened(t *testing.T) {
	before, err := Descriptors()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	opened, err := Opened(before)
	if want := fmt.Sprintf("%d /dev/null", f.Fd()); err != nil || len(opened) != 1 || opened[0] != want {
		t.Errorf("opened %q, %v; want %q", opened, err, want)
	}
}

// Which faults an order means.
func TestHits(t *testing.T) {
	for _, c := range []struct {
		f    Fault
		want string
	}{
		{Fault{}, "......"}, {Fault{N: 2}, ".x...."}, {Fault{N: 2, Every: 3}, ".x..x."}, {Fault{Every: 2}, "......"},
	} {
		var got strings.Builder
		for number := 1; number <= 6; number++ {
			if c.f.hits(number) {
				got.WriteByte('x')
			} else {
				got.WriteByte('.')
			}
		}
		if got.String() != c.want {
			t.Errorf("%+v: %s, want %s", c.f, &got, c.want)
		}
	}
}
