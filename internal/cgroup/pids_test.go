package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/larkshim/lark/internal/errno"
)

func TestPidsOfAGroupAndThoseBelow(t *testing.T) {
	f := newFake(t).layout(v2Mounts, "0::/shim\n")
	f.write("cgroup/ctr/cgroup.procs", "41\n40\n0\n")
	f.write("cgroup/ctr/sub/cgroup.procs", "42\n41\n")
	f.mkdir("cgroup/ctr/empty-of-files")
	f.write("cgroup/ctr/sub/sub/cgroup.procs", "7\n")
	g, err := f.host().FromSpec("/ctr", "ctr", false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := g.Pids()
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{7, 40, 41, 42}; !slices.Equal(got, want) {
		t.Errorf("pids %v, want %v", got, want)
	}
}

func TestPidsOfNoGroup(t *testing.T) {
	if _, err := (Group{}).Pids(); !errno.IsMissing(err) {
		t.Errorf("the zero group: %v, want ErrMissing", err)
	}
	f := newFake(t).layout(v2Mounts, "0::/shim\n")
	f.write("cgroup/ctr/cgroup.procs", "")
	g, err := f.host().FromSpec("/ctr", "ctr", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(f.cgfs, "ctr")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Pids(); !errno.IsMissing(err) {
		t.Errorf("a group that has gone: %v, want ErrMissing", err)
	}
}

func TestPidsOfARealGroup(t *testing.T) {
	h, err := NewHost()
	if err != nil {
		t.Fatal(err)
	}
	name := "/lark-pids-" + strconv.Itoa(os.Getpid())
	var procs string
	for _, c := range h.controllers() {
		if c == "pids" {
			procs = filepath.Join(h.v1[c].dir, name)
		}
	}
	if h.unified {
		procs = filepath.Join(h.v2.dir, name)
	}
	if err := os.Mkdir(procs, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(procs)
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	if err := os.WriteFile(filepath.Join(procs, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	g, err := h.FromSpec(name, "x", false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := g.Pids()
	if err != nil || !slices.Equal(got, []int{cmd.Process.Pid}) {
		t.Errorf("pids %v, %v; want [%d]", got, err, cmd.Process.Pid)
	}
}
