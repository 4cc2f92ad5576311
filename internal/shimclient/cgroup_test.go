package shimclient

import (
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
