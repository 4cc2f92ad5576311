package task

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/order"
)

// What the host does to a container: rows 57 and 58.

// groupDirs are the container's cgroups that are there, by hierarchy.
func (b *box) groupDirs() []string {
	b.t.Helper()
	dirs, err := filepath.Glob("/sys/fs/cgroup/*/lark-test/" + b.id)
	unified, err2 := filepath.Glob("/sys/fs/cgroup/lark-test/" + b.id)
	if dirs = append(dirs, unified...); err != nil || err2 != nil || len(dirs) == 0 {
		b.t.Fatalf("no cgroup of %s: %v, %v", b.id, err, err2)
	}
	return dirs
}

// Row 57: the cgroup is removed under us, its processes moved elsewhere. Stats says so;
// the container can be asked about, killed and deleted.
func TestRow57CgroupRemoved(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	pid := b.create()
	b.start("")
	for _, dir := range b.groupDirs() {
		// A hierarchy that has no processes of its own (freezer's child on some hosts) is
		// removed as it is.
		elsewhere := filepath.Join(filepath.Dir(filepath.Dir(dir)), "cgroup.procs")
		if err := os.WriteFile(elsewhere, []byte(strconv.Itoa(int(pid))), 0); err != nil {
			t.Fatal(err)
		}
		if err := unix.Rmdir(dir); err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
	}
	if _, err := s.Stats(t.Context(), &task.StatsRequest{ID: b.id}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("stats: %v, want FailedPrecondition", err)
	}
	if _, err := s.Pids(t.Context(), &task.PidsRequest{ID: b.id}); err != nil {
		t.Errorf("pids: %v", err)
	}
	if st := b.state(""); st.Pid != pid {
		t.Errorf("state: %v", st)
	}
	if err := b.kill("", 9); err != nil {
		t.Errorf("kill: %v", err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("")
}

// freeze freezes the container behind the runtime's back.
func (b *box) freeze() {
	b.t.Helper()
	for _, dir := range b.groupDirs() {
		v2 := filepath.Join(dir, "cgroup.freeze")
		if err := os.WriteFile(v2, []byte("1"), 0); err == nil {
			return
		}
		v1 := filepath.Join(dir, "freezer.state")
		if _, err := os.Stat(v1); err != nil {
			continue
		}
		// It may hang between the states; freezing again is what helps.
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			state, err := os.ReadFile(v1)
			if err != nil {
				b.t.Fatal(err)
			}
			if string(state) == "FROZEN\n" {
				return
			}
			for _, to := range []string{"THAWED", "FROZEN"} {
				if err := os.WriteFile(v1, []byte(to), 0); err != nil {
					b.t.Fatal(err)
				}
			}
		}
	}
	b.t.Fatal("it cannot be frozen")
}

// Row 57: the cgroup is frozen by somebody else, and the runtime does not get its kill
// done: runc waits for ever for a cgroup that hangs on its way to being frozen.
func TestRow57CgroupFrozenAndRuntimeFails(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	script := filepath.Join(s.dir, "runtime")
	text := "#!/bin/sh\ncase \"$*\" in *\" kill \"*) exit 1;; esac\nexec runc \"$@\"\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	b.request.Options = packed(t, &options.Options{BinaryName: script})
	b.create()
	b.start("")
	b.freeze()
	if err := b.kill("", 9); err != nil {
		t.Errorf("kill: %v", err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("")
}

// Row 57: the cgroup is frozen by somebody else. What only looks answers, and SIGKILL
// gets through.
func TestRow57CgroupFrozen(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	b.freeze()
	if _, err := s.Stats(t.Context(), &task.StatsRequest{ID: b.id}); err != nil {
		t.Errorf("stats: %v", err)
	}
	if p, err := s.Pids(t.Context(), &task.PidsRequest{ID: b.id}); err != nil || len(p.Processes) != 1 {
		t.Errorf("pids: %v, %v", p, err)
	}
	if err := b.kill("", 9); err != nil {
		t.Errorf("kill: %v", err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("")
}

// Row 58: the clock goes back by a day, and to 1970, between a start and its exit. The
// exit is not told to have been before the start, and the delete command is left the
// same time.
func TestRow58ClockGoesBack(t *testing.T) {
	s := newShim(t)
	ahead := 24 * time.Hour
	s.clock = func() time.Time { return time.Now().Add(ahead) }
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	b.exec("x", "sh", "-c", "exit 3")
	for _, exec := range []string{"x", ""} {
		if exec == "" {
			ahead = 56 * 365 * 24 * time.Hour
			if err := b.kill("", 9); err != nil {
				t.Fatal(err)
			}
		}
		b.wait(exec)
		kind := order.ExecStarted
		if exec == "" {
			kind = order.Started
		}
		started, exited := b.is(kind, exec), b.is(order.Exited, exec)
		if exited.At.Before(started.Sent) {
			t.Errorf("process %q: started at %v, exited at %v", exec, started.Sent, exited.At)
		}
		if st := b.state(exec); !st.ExitedAt.AsTime().Equal(exited.At) {
			t.Errorf("process %q: state says %v, the event %v", exec, st.ExitedAt.AsTime(), exited.At)
		}
	}
	c, err := s.find(b.id)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := c.bundle.ReadInitExit(); err != nil || !e.At.Equal(b.is(order.Exited, "").At) {
		t.Errorf("kept %v, %v", e.At, err)
	}
}

// Row 58: with a clock that does not jump back an exit's time is the one that was seen;
// with one that does, the time that has gone by is the monotonic clock's.
func TestRow58Later(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct{ exit, told, want time.Time }{
		"after":            {now.Add(time.Second), now, now.Add(time.Second)},
		"at once":          {now, now, now},
		"a jump forward":   {now.Add(24 * time.Hour), now, now.Add(24 * time.Hour)},
		"a day back":       {now.Add(-24 * time.Hour), now, now},
		"1970":             {time.Unix(7, 0), now, now},
		"nothing was told": {now, time.Time{}, now},
	} {
		if got := later(c.exit, c.told); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
