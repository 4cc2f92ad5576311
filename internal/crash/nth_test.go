package crash

// The N-th call fails, for all N, in the whole process: of a resource there are N left,
// and one more each time, until a container's life goes through without noticing. So
// each call that takes of it is the first to fail once. (The packages do the same call by
// call: children, stdio, cgroup and rootfs with a kernel that fails, bootstrap, task and oci
// with package nth.)

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// scarcity leaves n of a resource and gives it back.
type scarcity func(s *stage, n int) (restore func())

// TestRow47FailTheNthDescriptor: EMFILE.
func TestRow47FailTheNthDescriptor(t *testing.T) {
	untilItPasses(t, 3, func(t *testing.T) *stage { return newStage(t, built.plain, built.runc, nil) },
		func(s *stage, n int) func() {
			s.takeReserve()
			restore := s.descriptors(n)
			return func() { restore(); s.look() }
		})
}

// TestRow48FailTheNthFork: EAGAIN of clone(2), in the shim and in the runtime.
func TestRow48FailTheNthFork(t *testing.T) {
	untilItPasses(t, 3, func(t *testing.T) *stage { return newStage(t, built.plain, built.runc, nil) },
		func(s *stage, n int) func() { return s.pids(n) })
}

// TestRow46FailTheNthByte: ENOSPC, a page more each time.
func TestRow46FailTheNthByte(t *testing.T) {
	var fill func()
	var dir string
	untilItPasses(t, 3, func(t *testing.T) *stage {
		dir, fill = smallDisk(t)
		return newStageAt(t, dir, built.plain, built.runc, nil)
	}, func(s *stage, n int) func() {
		// What is set free after the disk is full is what there is: n files of one page.
		for i := range n {
			if err := os.WriteFile(filepath.Join(dir, "spare-"+strconv.Itoa(i)), make([]byte, os.Getpagesize()), 0o600); err != nil {
				s.t.Fatal(err)
			}
		}
		fill()
		for i := range n {
			if err := os.Remove(filepath.Join(dir, "spare-"+strconv.Itoa(i))); err != nil {
				s.t.Fatal(err)
			}
		}
		return func() {
			if err := os.Remove(filepath.Join(dir, "fill")); err != nil {
				s.t.Error(err)
			}
		}
	})
}

// untilItPasses tries with 0 of the resource, 1, and so on.
func untilItPasses(t *testing.T, least int, make func(*testing.T) *stage, scarce scarcity) {
	for n := 0; n < tooMany; n++ {
		passed := false
		t.Run(fmt.Sprint(n), func(t *testing.T) { passed = tryWith(t, n, make(t), scarce) })
		if t.Failed() {
			return
		}
		if passed {
			t.Logf("failed at %d points", n)
			if n < least {
				t.Error("those are too few: nothing was scarce")
			}
			return
		}
	}
	t.Error("it never passes")
}

// tryWith says whether a life went through with n of the resource left. If it did not,
// the container is ended by the API once there is more again, and nothing is left.
func tryWith(t *testing.T, n int, s *stage, scarce scarcity) bool {
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	before := s.openDescriptors()
	restore := scarce(s, n)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := s.lifeOf(ctx)
	select {
	case <-s.shim.Gone():
		t.Fatalf("the shim is dead:\n%s", s.bundle.Log())
	default:
	}
	restore()
	if err != nil {
		s.finish(ctx)
	}
	const events = 1 // the connection to the daemon, made for the first event
	var opened []string
	until(t, "descriptors are left open", func() bool { opened = s.openDescriptors(); return len(opened) <= len(before)+events })
	if len(opened) > len(before)+events {
		t.Errorf("open: %v; before: %v", opened, before)
	}
	s.shim.Leave(ctx)
	s.nothingLeft("at the end")
	for _, v := range s.checker.Finish() {
		t.Errorf("order: %v", v)
	}
	if t.Failed() {
		t.Logf("the first error was %v\n%s", err, s.bundle.Log())
	}
	return err == nil
}

// finish ends what is there of the container.
func (s *stage) finish(ctx context.Context) {
	s.t.Helper()
	if _, err := s.shim.State(ctx, &taskapi.StateRequest{ID: s.id}); errdefs.IsNotFound(err) {
		return
	}
	if err := s.shim.Kill(ctx, &taskapi.KillRequest{ID: s.id, Signal: 9}); err != nil && !errdefs.IsNotFound(err) {
		s.t.Errorf("kill: %v", err)
	}
	if _, err := s.shim.Wait(ctx, &taskapi.WaitRequest{ID: s.id}); err != nil {
		s.t.Errorf("wait: %v", err)
	}
	if _, err := s.shim.Delete(ctx, &taskapi.DeleteRequest{ID: s.id, ExecID: "e"}); err != nil && !errdefs.IsNotFound(err) {
		s.t.Errorf("delete of the exec: %v", err)
	}
	if _, err := s.shim.Delete(ctx, &taskapi.DeleteRequest{ID: s.id}); err != nil {
		s.t.Errorf("delete: %v", err)
	}
}

func (s *stage) openDescriptors() (open []string) {
	s.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.shim.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", s.shim.Pid, e.Name()))
		open = append(open, link)
	}
	return open
}

// takeReserve has the shim take its reserve, by leaving as many descriptors as are in
// use for a moment: at half of the limit it takes the reserve.
func (s *stage) takeReserve() {
	s.t.Helper()
	open := len(s.openDescriptors())
	restore := s.descriptors(open)
	s.look()
	restore()
	if len(s.openDescriptors()) < open+minReserve {
		s.t.Fatal("the reserve was not taken")
	}
}

// minReserve is less than the reserve.
const minReserve = 8

// look makes the shim look how many descriptors are in use, by a Create that is
// refused.
func (s *stage) look() {
	s.t.Helper()
	if _, err := s.shim.Create(s.t.Context(), &taskapi.CreateTaskRequest{ID: "no id/"}); !errdefs.IsInvalidArgument(err) {
		s.t.Fatalf("Create of nothing: %v", err)
	}
}

// descriptors lets the shim open n more.
func (s *stage) descriptors(n int) (restore func()) {
	s.t.Helper()
	taken := map[string]bool{}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.shim.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		taken[e.Name()] = true
	}
	limit := 0
	for free := 0; free < n || taken[strconv.Itoa(limit)]; limit++ {
		if !taken[strconv.Itoa(limit)] {
			free++
		}
	}
	var old unix.Rlimit
	if err := unix.Prlimit(s.shim.Pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		s.t.Fatal(err)
	}
	set := func(soft uint64) {
		if err := unix.Prlimit(s.shim.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: soft, Max: old.Max}, nil); err != nil {
			s.t.Fatal(err)
		}
	}
	set(uint64(limit))
	return func() { set(old.Cur) }
}

// pids puts the shim into a cgroup that takes n processes and threads more.
func (s *stage) pids(n int) (restore func()) {
	s.t.Helper()
	dir := "/sys/fs/cgroup/pids/lark-test/" + s.id + "-shim"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	write := func(file, value string) {
		s.t.Helper()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
			s.t.Fatal(err)
		}
	}
	write("cgroup.procs", strconv.Itoa(s.shim.Pid))
	s.t.Cleanup(func() {
		_ = s.shim.Stop(context.Background())
		s.shim = nil
		until(s.t, "the shim's cgroup cannot be removed", func() bool { return os.Remove(dir) == nil })
	})
	text, err := os.ReadFile(filepath.Join(dir, "pids.current"))
	if err != nil {
		s.t.Fatal(err)
	}
	now, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("the shim has %d threads", now)
	write("pids.max", strconv.Itoa(now+n))
	return func() { write("pids.max", "max") }
}
