package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"

	"github.com/larkshim/lark/internal/errno"
)

// unifiedHost is this machine as if it had nothing but its cgroup2 mount, wherever that is.
func unifiedHost(t *testing.T) *Host {
	t.Helper()
	h, err := NewHost()
	must(t, err)
	if os.Geteuid() != 0 || h.v2.dir == "" {
		t.Skip("needs root and a cgroup2 mount")
	}
	h.unified, h.v1 = true, nil
	return h
}

// The real cgroup2: find, give controllers, count, join, remove.
func TestUnifiedReal(t *testing.T) {
	h := unifiedHost(t)
	name := "lark-unified-" + itoa(os.Getpid())
	top := filepath.Join(h.v2.dir, name)
	must(t, os.MkdirAll(filepath.Join(top, "c"), 0o755))
	defer os.Remove(top)
	cmd := exec.Command("/bin/sh", "-c", "read x")
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	must(t, h.JoinShim(name+"/c", cmd.Process.Pid))
	g, err := h.Of(cmd.Process.Pid)
	must(t, err)
	if g.KillDir() != filepath.Join(top, "c") || !g.Unified() {
		t.Errorf("KillDir %q", g.KillDir())
	}
	must(t, g.EnableControllers())
	have, err := os.ReadFile(filepath.Join(top, "cgroup.subtree_control"))
	must(t, err)
	all, err := os.ReadFile(filepath.Join(h.v2.dir, "cgroup.controllers"))
	must(t, err)
	for _, c := range strings.Fields(string(all)) {
		if !slices.Contains(strings.Fields(string(have)), c) {
			t.Errorf("%s was not handed down: %q", c, have)
		}
	}
	if s := decode[*stats2.Metrics](t, g); s.CPU == nil || s.Memory == nil || s.Pids == nil {
		t.Errorf("%v", s)
	}
	// A zombie keeps its place in version 2 until it is reaped.
	must(t, in.Close())
	waitZombie(t, cmd.Process.Pid)
	if z, err := h.Of(cmd.Process.Pid); err != nil || z.KillDir() != g.KillDir() {
		t.Errorf("zombie: %q, %v", z.KillDir(), err)
	}
	cmd.Wait()
	if s, err := h.FromSpec("/"+name+"/c", "x", false); err != nil || s.KillDir() != g.KillDir() {
		t.Errorf("from the spec: %q, %v", s.KillDir(), err)
	}
	must(t, g.Remove())
	if _, err := g.Stats(); !errno.IsMissing(err) {
		t.Errorf("row 57, the group is gone: %v", err)
	}
	if _, err := h.FromSpec("/"+name+"/c", "x", false); !errno.IsMissing(err) {
		t.Errorf("from the spec, gone: %v", err)
	}
}
