package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// fakeHost is a machine made of files: a /proc with a mount table and some processes, and a cgroup tree.
type fakeHost struct {
	t                *testing.T
	dir, proc, cgfs  string
	hugepages, selfs string
}

func newFake(t *testing.T) *fakeHost {
	t.Helper()
	dir := t.TempDir()
	f := &fakeHost{t: t, dir: dir, proc: filepath.Join(dir, "proc"), cgfs: filepath.Join(dir, "cgroup"), hugepages: filepath.Join(dir, "hugepages")}
	f.write("proc/self/mountinfo", "")
	f.write("proc/self/cgroup", "")
	return f
}

func (f *fakeHost) write(name, content string) string {
	f.t.Helper()
	p := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(strings.ReplaceAll(content, "CG", f.cgfs)), 0o644); err != nil {
		f.t.Fatal(err)
	}
	return p
}

func (f *fakeHost) mkdir(name string) string {
	f.t.Helper()
	p := filepath.Join(f.dir, name)
	if err := os.MkdirAll(p, 0o755); err != nil {
		f.t.Fatal(err)
	}
	return p
}

// process adds a process with its cgroups, alive or a zombie.
func (f *fakeHost) process(pid, cgroups, state string) {
	f.write("proc/"+pid+"/cgroup", cgroups)
	f.write("proc/"+pid+"/stat", pid+" (a ) Z (b) "+state+" 1 1 1")
}

func (f *fakeHost) host() *Host {
	f.t.Helper()
	return f.hostWith(kernel())
}

func (f *fakeHost) hostWith(sys *system) *Host {
	f.t.Helper()
	h, err := hostAt(sys, f.proc, f.cgfs, f.hugepages)
	if err != nil {
		f.t.Fatal(err)
	}
	return h
}

const (
	v2Mounts = "31 23 0:28 / CG rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	v1Mounts = "31 23 0:28 / CG rw - tmpfs tmpfs rw\n" +
		"32 31 0:29 / CG/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n" +
		"35 31 0:32 / CG/memory rw - cgroup cgroup rw,memory\n" +
		"36 31 0:33 / CG/devices rw - cgroup cgroup rw,devices\n" +
		"37 31 0:34 / CG/freezer rw - cgroup cgroup rw,freezer\n" +
		"39 31 0:36 / CG/pids rw - cgroup cgroup rw,pids\n" +
		"40 31 0:37 / CG/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/a,name=systemd\n"
	hybridMounts = v1Mounts + "41 31 0:38 / CG/unified rw - cgroup2 cgroup2 rw\n"
	v1Self       = "5:cpu,cpuacct:/shim\n4:memory:/shim\n3:pids:/shim\n2:devices:/shim\n1:freezer:/shim\n0::/shim\n"
)

func (f *fakeHost) layout(mounts, self string) *fakeHost {
	f.write("proc/self/mountinfo", mounts)
	f.write("proc/self/cgroup", self)
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
