package cgroup

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// eater, in the environment, makes the test binary a process that eats memory once a line is written to it.
const eater = "LARK_TEST_EAT_MEMORY"

func TestMain(m *testing.M) {
	if os.Getenv(eater) != "" {
		bufio.NewReader(os.Stdin).ReadString('\n')
		var held [][]byte
		for range 1024 {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			held = append(held, b)
		}
		fmt.Println(len(held))
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// waitTime bounds what a test waits for an event that must come.
const waitTime = time.Minute

func waitZombie(t *testing.T, pid int) {
	t.Helper()
	var si unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &si, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}

// last is Last's answer of a container that was not struck.
func last(w *OOMWatch) bool {
	more, _ := w.Last(false)
	return more
}

// oomGroup is a real version 1 memory group with a limit.
func oomGroup(t *testing.T) (*Host, Group) {
	h := legacy(t)
	g := realGroup(t, h, "memory", "pids")
	if err := os.WriteFile(filepath.Join(g.Dir("memory"), "memory.limit_in_bytes"), []byte("33554432"), 0); err != nil {
		t.Fatal(err)
	}
	return h, g
}

// eat starts a process in the group (or in dir below it), which is killed for want of memory, and leaves it a zombie
// until the test ends.
func eat(t *testing.T, dir string) (pid int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), eater+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Wait()
		if ws := cmd.ProcessState.Sys().(interface{ Signaled() bool }); !ws.Signaled() {
			t.Errorf("the process was not killed: %v", cmd.ProcessState)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(fmt.Sprint(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	return cmd.Process.Pid
}

// A child of the container is killed: reported at once, the container living on, and not again by Last.
func TestOOMOfAChildV1(t *testing.T) {
	_, g := oomGroup(t)
	heard := make(chan struct{}, 16)
	w, err := g.WatchOOM(func() { heard <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	pid := eat(t, g.Dir("memory"))
	select {
	case <-heard:
	case <-time.After(waitTime):
		t.Error("nothing heard")
	}
	waitZombie(t, pid)
	if last(w) || last(w) {
		t.Error("the same kill was reported twice")
	}
}

// Invariant 17: whoever sees init dead and then asks Last has heard of the OOM, one way or the other and once.
func TestOOMOfInitV1(t *testing.T) {
	for range 10 {
		_, g := oomGroup(t)
		heard := make(chan struct{}, 16)
		w, err := g.WatchOOM(func() { heard <- struct{}{} })
		if err != nil {
			t.Fatal(err)
		}
		waitZombie(t, eat(t, g.Dir("memory")))
		more := last(w)
		if n := len(heard); n > 1 || (n == 1) == more {
			t.Errorf("heard %d times, Last %v", n, more)
		}
	}
}

// The container has a group of its own in its group; version 1 counts the kill there.
func TestOOMBelowV1(t *testing.T) {
	_, g := oomGroup(t)
	w, err := g.WatchOOM(func() {})
	if err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(g.Dir("memory"), "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(below)
	heard := make(chan struct{}, 16)
	w.mu.Lock()
	w.hear = func() { heard <- struct{}{} }
	w.mu.Unlock()
	waitZombie(t, eat(t, below))
	if more := last(w); more == (len(heard) > 0) {
		t.Errorf("heard %d times, Last %v", len(heard), more)
	}
}

// No eventfd to be had: degraded, but the last look still tells (row 50).
func TestRow50WatchDegradedV1(t *testing.T) {
	h, g := oomGroup(t)
	sys := *kernel()
	sys.eventfd = func() (int, error) { return -1, unix.EMFILE }
	h.sys = &sys
	w, err := g.WatchOOM(func() { t.Error("called by a degraded watch") })
	if !errdefs.IsResourceExhausted(err) {
		t.Fatal(err)
	}
	waitZombie(t, eat(t, g.Dir("memory")))
	if !last(w) {
		t.Error("Last did not see the kill")
	}
}

// W15: the group goes away under the watch; the watch ends without spinning, and Last is harmless (row 57).
func TestRow57GroupRemovedUnderWatchV1(t *testing.T) {
	h := legacy(t)
	g := realGroup(t, h, "memory", "pids")
	w, err := g.WatchOOM(func() { t.Error("OOM out of nothing") })
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if last(w) {
		t.Error("OOM out of nothing")
	}
	if _, err := g.WatchOOM(func() {}); !errno.IsMissing(err) {
		t.Errorf("watching a group that is gone: %v", err)
	}
}

// v2Group is a fake container on version 2 with a count of kills; inotify works on plain files alike.
func v2Group(t *testing.T, sys *system) (*fakeHost, *Host, Group) {
	f := newFake(t).layout(v2Mounts, "0::/shim\n")
	f.write("cgroup/c/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
	f.process("42", "0::/c\n", "S")
	h := f.hostWith(sys)
	g, err := h.Of(42)
	if err != nil {
		t.Fatal(err)
	}
	return f, h, g
}

func TestOOMV2(t *testing.T) {
	f, h, g := v2Group(t, kernel())
	heard := make(chan struct{}, 16)
	w, err := g.WatchOOM(func() { heard <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	other, err := g.WatchOOM(func() {}) // a second container in the same group
	if err != nil {
		t.Fatal(err)
	}
	f.write("cgroup/c/memory.events", "low 7\noom 3\noom_kill 2\n") // no kill
	f.write("cgroup/c/memory.events", "low 7\noom 4\noom_kill 3\n")
	select {
	case <-heard:
	case <-time.After(waitTime):
		t.Fatal("nothing heard")
	}
	last(other)
	if h.oom.file == nil {
		t.Error("the instance was closed under a watch")
	}
	if last(w) {
		t.Error("the same kill was reported twice")
	}
	if h.oom.file != nil || len(h.oom.watches) != 0 {
		t.Error("the last watch left the inotify instance open")
	}
	f.write("cgroup/c/memory.events", "oom_kill 9\n")
	if len(heard) != 0 || last(w) {
		t.Error("reported after Last")
	}
}

// Neither a missing inotify instance nor a missing watch costs the last look (row 50).
func TestRow50WatchDegradedV2(t *testing.T) {
	for name, spoil := range map[string]func(*system){
		"instances": func(s *system) { s.inotify = func() (int, error) { return -1, unix.EMFILE } },
		"watches":   func(s *system) { s.addWatch = func(int, string) (int, error) { return -1, unix.ENOSPC } },
	} {
		t.Run(name, func(t *testing.T) {
			sys := kernel()
			spoil(sys)
			f, h, g := v2Group(t, sys)
			w, err := g.WatchOOM(func() { t.Error("called by a degraded watch") })
			if !errdefs.IsResourceExhausted(err) {
				t.Fatal(err)
			}
			if h.oom.file != nil {
				t.Error("an inotify instance stays open without a watch")
			}
			f.write("cgroup/c/memory.events", "oom_kill 3\n")
			if !last(w) {
				t.Error("Last did not see the kill")
			}
		})
	}
}

func TestRow57OOMWithoutController(t *testing.T) {
	f := newFake(t).layout(v2Mounts, "0::/shim\n")
	f.mkdir("cgroup/c")
	f.process("42", "0::/c\n", "S")
	g, err := f.host().Of(42)
	if err != nil {
		t.Fatal(err)
	}
	w, err := g.WatchOOM(func() { t.Error("called") })
	if !errno.IsMissing(err) || last(w) {
		t.Errorf("%v", err)
	}
	if last((*OOMWatch)(nil)) {
		t.Error("nil")
	}
}

// The queue of events may overflow; then every watch looks.
func TestOOMQueueOverflow(t *testing.T) {
	i := &inotifyWatcher{file: os.Stdin, watches: map[int32][]*OOMWatch{1: {{}}, 2: {{}, {}}}}
	event := make([]byte, unix.SizeofInotifyEvent)
	for n := range 4 {
		event[n] = 0xff // wd -1
	}
	event[5] = unix.IN_Q_OVERFLOW >> 8
	if got := i.wake(os.Stdin, event); len(got) != 3 {
		t.Errorf("%d watches", len(got))
	}
	if got := i.wake(os.Stdout, event); got != nil {
		t.Error("events of an instance that is closed")
	}
	if got := i.wake(os.Stdin, event[:7]); got != nil {
		t.Error("half an event")
	}
}

// The container has the killing disabled: it stands still, which is told at once, as upstream does.
func TestOOMKillDisabledV1(t *testing.T) {
	_, g := oomGroup(t)
	must(t, os.WriteFile(filepath.Join(g.Dir("memory"), "memory.oom_control"), []byte("1"), 0))
	heard := make(chan struct{}, 16)
	w, err := g.WatchOOM(func() { heard <- struct{}{} })
	must(t, err)
	pid := eat(t, g.Dir("memory"))
	select {
	case <-heard:
	case <-time.After(waitTime):
		t.Error("nothing heard")
	}
	must(t, unix.Kill(pid, unix.SIGKILL))
	waitZombie(t, pid)
	if last(w) {
		t.Error("told twice")
	}
}
