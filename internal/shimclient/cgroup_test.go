package shimclient

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCgroupDirs(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"memory/lark-1", "pids/lark-1/below", "pids/lark-12"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("memory", filepath.Join(root, "mem")); err != nil {
		t.Fatal(err)
	}
	got := cgroupDirs(root, "/lark-1")
	want := []string{filepath.Join(root, "memory/lark-1"), filepath.Join(root, "pids/lark-1")}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestClearRefusesRoot: an empty or climbing cgroup must never mean everybody's.
func TestClearRefusesRoot(t *testing.T) {
	for _, c := range []string{"", "/", "/../x"} {
		if err := clearCgroup(t.Context(), c); err != nil {
			t.Errorf("%q: %v", c, err)
		}
	}
}

// TestClearPassesOverPlainFiles: crun leaves directories that look like cgroups where no
// cgroup2 is mounted. The pid in there was somebody's once; it must not be killed, nor
// its death be waited for.
func TestClearPassesOverPlainFiles(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "unified", "lark-1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "1000")
	other.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		other.Process.Kill()
		other.Wait()
	}()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, other.Process.Pid), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := clearCgroupBelow(t.Context(), root, "/lark-1"); err != nil {
		t.Error(err)
	}
	var w unix.WaitStatus
	if pid, err := unix.Wait4(other.Process.Pid, &w, unix.WNOHANG, nil); err != nil || pid != 0 {
		t.Errorf("the process named there has ended: %v, %v", w, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the directory was touched: %v, %v", left, err)
	}
}

// TestClearRealCgroup: a cgroup of the kernel's is emptied and removed.
func TestClearRealCgroup(t *testing.T) {
	name := fmt.Sprintf("/lark-test-%d", os.Getpid())
	var dir string
	for _, d := range []string{cgroupRoot, cgroupRoot + "/pids", cgroupRoot + "/freezer"} {
		if onCgroupFS(d) && os.Mkdir(d+name, 0o755) == nil {
			dir = d + name
			break
		}
	}
	if dir == "" {
		t.Skip("no cgroup can be made here")
	}
	member := exec.Command("sleep", "1000")
	member.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- member.Wait() }() // a zombie would stay a member
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, member.Process.Pid), 0); err != nil {
		t.Fatal(err)
	}
	if err := clearCgroup(t.Context(), name); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("the member was not killed")
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", dir, err)
	}
}

// TestKillHeld kills what is listed and passes over what is no longer meant.
func TestKillHeld(t *testing.T) {
	meant, other := exec.Command("sleep", "1000"), exec.Command("sleep", "1000")
	for _, c := range []*exec.Cmd{meant, other} {
		c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	calls := 0
	list := func() []int {
		calls++
		if calls > 1 {
			return nil
		}
		return []int{meant.Process.Pid, other.Process.Pid}
	}
	if err := killHeld(t.Context(), list, func(pid int) bool { return pid == meant.Process.Pid }); err != nil {
		t.Error(err)
	}
	if err := meant.Wait(); err == nil {
		t.Error("it was not killed")
	}
	if err := unix.Kill(other.Process.Pid, 0); err != nil {
		t.Error("another process was killed")
	}
	other.Process.Kill()
	other.Wait()
}
