package cgroup

import (
	"path"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// A spec's cgroup path, whatever it says, names places below the hierarchy's root: what
// is in them may be killed.
func FuzzCgroupsPath(f *testing.F) {
	for _, s := range []string{"", "/", "..", "/a/b", "../../x", "a.slice:b:c", "-.slice::c", "::", "a-b.slice:p:..", "a.slice:b:../c", "/a/../..", "\x00"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, spec string, systemd bool) {
		all, err := candidates(spec, "id1", systemd)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: an untyped error: %v", spec, err)
			}
			return
		}
		if len(all) == 0 {
			t.Errorf("%q: neither a place nor an error", spec)
		}
		for _, c := range all {
			if c.path == "/" || path.Clean(c.path) != c.path || !path.IsAbs(c.path) {
				t.Errorf("%q: place %q", spec, c.path)
			}
		}
	})
}

// Whatever the mount table and a process's cgroups say, a group is below a mount, and
// what may be killed is never the mount itself.
func FuzzMountTable(f *testing.F) {
	f.Add(v1Mounts, v1Self)
	f.Add(v2Mounts, "0::/shim\n")
	f.Add("1 2 3:4 /a\\040b /m\\134x rw - cgroup c rw,pids\n", "4:pids:/a b/c\n")
	f.Add("1 2 3:4 / / rw - cgroup2 c rw\n", "0::/../x\n")
	f.Add(" - ", "::\n1:2:3")
	f.Add("1 2 3:4 / . rw - cgroup2 c rw\n", "0::/0\n")
	f.Add("0 0 0 / /0 - cgroup 0 0", "//..") // found by fuzzing
	f.Fuzz(func(t *testing.T, table, self string) {
		if len(table)+len(self) > 1<<16 || strings.ContainsRune(table+self, 0) {
			return
		}
		h := &Host{v1: map[string]mount{}}
		for line := range strings.Lines(table) {
			h.addMount(line)
		}
		for _, m := range append([]mount{h.v2}, values(h.v1)...) {
			for line := range strings.Lines(self) {
				parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
				dir, ok := m.inside(parts[len(parts)-1])
				if !ok {
					continue
				}
				if root := path.Clean(m.dir); root != "/" && dir != root && !strings.HasPrefix(dir, root+"/") {
					t.Errorf("%q of %+v is %q", line, m, dir)
				}
				if private(m, dir, parts[len(parts)-1]) {
					t.Errorf("%q of %+v: the shim's own group may be killed", line, m)
				}
			}
		}
	})
}

func values(m map[string]mount) (all []mount) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}
