package nth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
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

// Whoever made a descriptor that is left is named, with who called it; and nobody else is.
func TestTheOpenerIsNamed(t *testing.T) {
	w, err := Join()
	if err != nil {
		t.Fatal(err)
	}
	if w == nil {
		Rerun(t, (*exec.Cmd).Run, []unix.Errno{eio})
		return
	}
	t.Run(Name(eio), func(t *testing.T) {
		if err := innocent(); err != nil { // the first os.Open makes the poller, too
			t.Fatal(err)
		}
		before, err := Descriptors()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Arm(Fault{N: 1 << 20, Errno: eio}); err != nil {
			t.Fatal(err)
		}
		file := make([]int, 1)
		leakFile(t, file)
		pipe := make([]int, 2)
		<-leakPipe(t, pipe)
		if err := innocent(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Disarm(); err != nil {
			t.Fatal(err)
		}
		opened, err := Opened(before)
		if err != nil || len(opened) != 3 {
			t.Fatalf("opened %q, %v", opened, err)
		}
		for _, d := range opened {
			said := w.Explain([]string{d})
			by := []string{"openat /etc/passwd", "nth.leakFile", "nth.TestTheOpenerIsNamed.func"}
			if strings.Contains(d, "pipe:") {
				by = []string{"pipe2\n", "nth.leakPipe.func1"}
			}
			for _, want := range by {
				if !strings.Contains(said, want) {
					t.Errorf("%q is not in:\n%s", want, said)
				}
			}
			if strings.Contains(said, "nth.innocent") {
				t.Errorf("another is named as well:\n%s", said)
			}
		}
		for _, fd := range append(file, pipe...) {
			unix.Close(fd)
		}
		t.Log("points")
	})
}

//go:noinline
func leakFile(t *testing.T, leaks []int) {
	var err error
	if leaks[0], err = unix.Open("/etc/passwd", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		t.Error(err)
	}
}

// leakPipe leaks in a goroutine of its own.
func leakPipe(t *testing.T, leaks []int) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := unix.Pipe2(leaks, unix.O_CLOEXEC); err != nil {
			t.Error(err)
		}
	}()
	return ended
}

//go:noinline
func innocent() error {
	f, err := os.Open("/etc/hostname")
	if err != nil {
		return err
	}
	return f.Close()
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
	// What has another number now is none; a second one is, and is told.
	if before, err = Descriptors(); err != nil {
		t.Fatal(err)
	}
	moved, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(moved)
	f.Close()
	if opened, err = Opened(before); err != nil || len(opened) > 0 {
		t.Errorf("opened %q, %v; want none", opened, err)
	}
	more, err := unix.FcntlInt(uintptr(moved), unix.F_DUPFD_CLOEXEC, 200)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(more)
	if opened, err = Opened(before); err != nil || len(opened) != 1 || opened[0] != fmt.Sprintf("%d /dev/null", more) {
		t.Errorf("opened %q, %v; want descriptor %d", opened, err, more)
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

// What World stands for turns from call to call, and is what the call can end with.
func TestWorldTurns(t *testing.T) {
	open, _ := find(unix.SYS_OPENAT)
	read, _ := find(unix.SYS_READ)
	seen := map[unix.Errno]bool{}
	for n := range 10 {
		seen[Fault{N: n, Errno: World}.answer(open, n)] = true
	}
	for _, errno := range worldly {
		if !seen[errno] {
			t.Errorf("openat is never answered with %s", Name(errno))
		}
	}
	for on, want := range map[string]bool{"/proc/1/stat": true, "/sys/fs/cgroup/x/cgroup.procs": true, "/etc/passwd": false, "pipe:[7]": false} {
		if got := read.fits(World, [6]uint64{}, on); got != want {
			t.Errorf("a read of %s can end with an error of the world: %v", on, got)
		}
	}
	if read.fits(unix.ENOENT, [6]uint64{}, "/proc/1/stat") || !open.fits(unix.ENOENT, [6]uint64{}, "") {
		t.Error("a read can end with ENOENT, or an open cannot")
	}
	if got := (Fault{N: 3, Errno: unix.EIO}).answer(open, 3); got != unix.EIO {
		t.Errorf("EIO is answered as %v", got)
	}
}

// Of calls that are made alike of many things the first counts, for each time that the
// things are gone through, and of one that is repeated so many as are asked for.
func TestAlikeCountOnce(t *testing.T) {
	s := &Supervisor{Alike: regexp.MustCompile("^[a-z]+ (?P<each>/proc/[0-9]+)/"), Most: 2, alike: map[string]int{}}
	var counted []string
	for _, about := range []string{"open /proc/1/stat", "open /proc/2/stat", "read /proc/2/stat", "open /proc/1/cwd", "open /proc/2/stat", "open /proc/1/stat", "open /proc/1/stat", "open /x", "open /x", "open /x"} {
		if s.first(about) {
			counted = append(counted, about)
		}
	}
	want := []string{"open /proc/1/stat", "read /proc/2/stat", "open /proc/1/cwd", "open /proc/2/stat", "open /x", "open /x"}
	if !slices.Equal(counted, want) {
		t.Errorf("counted %q, want %q", counted, want)
	}
}
