package cgroup

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

func TestJoinShimFake(t *testing.T) {
	f := newFake(t).layout(hybridMounts, v1Self)
	for _, c := range []string{"memory", "pids", "unified"} {
		f.write("cgroup/"+c+"/shims/cgroup.procs", "")
	}
	h := f.host()
	if err := h.JoinShim("/shims", 77); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"memory", "pids", "unified"} {
		if b, _ := os.ReadFile(filepath.Join(f.cgfs, c, "shims/cgroup.procs")); string(b) != "77" {
			t.Errorf("%s has %q", c, b)
		}
	}
	if err := h.JoinShim("/other", 77); !errno.IsMissing(err) {
		t.Errorf("an absent group: %v", err)
	}
	for _, bad := range []int{0, -1} {
		if err := h.JoinShim("/shims", bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("pid %d: %v", bad, err)
		}
	}
}

// All real hierarchies, the unified one among them.
func TestJoinShimReal(t *testing.T) {
	h := legacy(t)
	name := fmt.Sprintf("lark-join-%d", os.Getpid())
	dirs := []string{}
	for _, c := range h.controllers() {
		dirs = append(dirs, filepath.Join(h.v1[c].dir, name))
	}
	if h.v2.dir != "" {
		dirs = append(dirs, filepath.Join(h.v2.dir, name))
	}
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(d)
	}
	// A new cpuset has neither CPUs nor nodes and takes nobody until it is given some.
	if d := filepath.Join(h.v1["cpuset"].dir, name); h.v1["cpuset"].dir != "" {
		for _, n := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := os.ReadFile(filepath.Join(filepath.Dir(d), n))
			if err != nil {
				t.Fatal(err)
			}
			os.WriteFile(filepath.Join(d, n), b, 0)
		}
	}
	cmd := exec.Command("/bin/sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	if err := h.JoinShim("/"+name, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		if err != nil || strings.TrimSpace(string(b)) != fmt.Sprint(cmd.Process.Pid) {
			t.Errorf("%s: %q, %v", d, b, err)
		}
	}
	if err := h.JoinShim("/"+name, 1<<22+1); !errno.IsMissing(err) {
		t.Errorf("a process that is not there: %v", err)
	}
}

func v2Tree(t *testing.T, path string) (*fakeHost, Group) {
	f := newFake(t).layout(v2Mounts, "0::/shim\n")
	f.write("cgroup/cgroup.controllers", "cpu io memory pids\n")
	f.mkdir("cgroup" + path)
	for d := path; d != "/"; {
		d = filepath.Dir(d)
		f.write("cgroup"+d+"/cgroup.subtree_control", "")
	}
	f.process("42", "0::"+path+"\n", "S")
	g, err := f.host().Of(42)
	if err != nil {
		t.Fatal(err)
	}
	return f, g
}

func (f *fakeHost) read(name string) string {
	b, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

func TestEnableControllers(t *testing.T) {
	f, g := v2Tree(t, "/a/b/c")
	f.write("cgroup/a/cgroup.subtree_control", "memory pids")
	f.write("cgroup/cgroup.subtree_control", "cpu io memory pids\n")
	if err := g.EnableControllers(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"cgroup/cgroup.subtree_control": "cpu io memory pids\n", // untouched: nothing was missing
		// A plain file keeps the tail of what was there, where the kernel's would be rewritten.
		"cgroup/a/cgroup.subtree_control":   "+cpu +io" + "ids",
		"cgroup/a/b/cgroup.subtree_control": "+cpu +io +memory +pids",
	} {
		if got := f.read(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(f.cgfs, "a/b/c/cgroup.subtree_control")); err == nil {
		t.Error("the container's own subtree_control was written")
	}
}

// One controller that the kernel refuses does not cost the others, and the error names it.
func TestEnableControllersOneByOne(t *testing.T) {
	f, _ := v2Tree(t, "/a/c")
	sys := kernel()
	var wrote []string
	plain := sys.write
	sys.write = func(fd int, p []byte) (int, error) {
		if strings.Contains(string(p), "+cpu") {
			return -1, unix.EINVAL
		}
		wrote = append(wrote, string(p))
		return plain(fd, p)
	}
	g, err := f.hostWith(sys).Of(42)
	if err != nil {
		t.Fatal(err)
	}
	err = g.EnableControllers()
	if err == nil || !strings.Contains(err.Error(), "cpu") || strings.Contains(err.Error(), "memory") {
		t.Errorf("error %v", err)
	}
	if got := strings.Join(wrote, " "); got != "+io +memory +pids +io +memory +pids" {
		t.Errorf("wrote %q", got)
	}
}

// Fail the N-th call of each kind: no method may crash, leave a descriptor open or answer success for nothing.
func TestFailTheNth(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.EIO, unix.ENOSPC, unix.EINTR} {
		points := 0
		for n := 1; ; n++ {
			f, _ := v2Tree(t, "/a/c")
			f.write("cgroup/a/c/memory.events", "oom_kill 0\n")
			sys, calls := failing(n, errno)
			scenario(f, sys)
			if open := calls.open.Load(); open != 0 {
				t.Fatalf("%v at call %d: %d descriptors left open", errno, n, open)
			}
			if calls.n.Load() < int64(n) {
				break
			}
			points++
		}
		if points < 20 {
			t.Errorf("%v: only %d points", errno, points)
		}
		t.Logf("%v: %d points", errno, points)
	}
}

// scenario is what a task does with its group, going on after each error.
func scenario(f *fakeHost, sys *system) {
	h, err := hostAt(sys, f.proc, f.cgfs, f.hugepages)
	if err != nil {
		return
	}
	g, err := h.Locate(42, "/a/c", "id", false)
	if err != nil {
		return
	}
	_ = g.EnableControllers()
	w, _ := g.WatchOOM(func() {})
	_, _ = g.Stats()
	_ = g.Exists()
	_ = h.JoinShim("/a/c", 42)
	last(w)
	_ = g.Remove()
}

// callCount counts calls and open descriptors. A watch makes calls of its own.
type callCount struct{ n, open atomic.Int64 }

// failing is the kernel with its n-th call failing. Descriptors are counted.
func failing(n int, errno unix.Errno) (*system, *callCount) {
	c := &callCount{}
	k := kernel()
	fail := func() bool { return c.n.Add(1) == int64(n) }
	opened := func(fd int, err error) (int, error) {
		if err == nil {
			c.open.Add(1)
		}
		return fd, err
	}
	return &system{
		open: func(p string, flags int) (int, error) {
			if fail() {
				return -1, errno
			}
			return opened(k.open(p, flags))
		},
		read: func(fd int, p []byte) (int, error) {
			if fail() {
				return -1, errno
			}
			return k.read(fd, p)
		},
		write: func(fd int, p []byte) (int, error) {
			if fail() {
				return -1, errno
			}
			return k.write(fd, p)
		},
		close: func(fd int) error { c.open.Add(-1); return k.close(fd) },
		rmdir: func(p string) error {
			if fail() {
				return errno
			}
			return k.rmdir(p)
		},
		readDir: func(p string) ([]fs.DirEntry, error) {
			if fail() {
				return nil, errno
			}
			return k.readDir(p)
		},
		// The poller owns these; closing is the os.File's.
		eventfd: func() (int, error) {
			if fail() {
				return -1, errno
			}
			return k.eventfd()
		},
		inotify: func() (int, error) {
			if fail() {
				return -1, errno
			}
			return k.inotify()
		},
		addWatch: func(fd int, p string) (int, error) {
			if fail() {
				return -1, errno
			}
			return k.addWatch(fd, p)
		},
		rmWatch: k.rmWatch,
	}, c
}
