package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/larkshim/lark/internal/errno"
)

// podGroup is a fake container on version 2 in a pod's group beside another, and a
// watch of it.
func podGroup(t *testing.T) (f *fakeHost, w *OOMWatch, heard *int) {
	f = newFake(t).layout(v2Mounts, "0::/shim\n")
	f.write("cgroup/pod/memory.events", "oom_kill 5\n")
	f.write("cgroup/pod/c/memory.events", "oom_kill 2\n")
	f.write("cgroup/pod/other/memory.events", "oom_kill 3\n")
	f.process("42", "0::/pod/c\n", "S")
	sys := kernel()
	sys.addWatch = func(int, string) (int, error) { return 1, nil } // that hears nothing
	g, err := f.hostWith(sys).Of(42)
	must(t, err)
	heard = new(int)
	w, err = g.WatchOOM(func() { *heard++ })
	must(t, err)
	w.look() // its own look at the beginning may still be under way
	return f, w, heard
}

// remove removes a group, as systemd removes the scope of a dead init.
func (f *fakeHost) remove(name string) {
	f.t.Helper()
	must(f.t, os.RemoveAll(filepath.Join(f.dir, name)))
}

// F16: the group is there when init is dead and not reaped, and gone at the last
// look.
func TestF16OOMSeenBeforeTheReaping(t *testing.T) {
	for _, kill := range []bool{true, false} {
		f, w, heard := podGroup(t)
		want := 0
		if kill {
			f.write("cgroup/pod/c/memory.events", "oom_kill 3\n")
			f.write("cgroup/pod/memory.events", "oom_kill 6\n")
			want = 1
		}
		w.Died()
		f.remove("cgroup/pod/c")
		more, err := w.Last(true)
		if *heard != want || more || err != nil {
			t.Errorf("kill %v: heard %d times, %v, %v", kill, *heard, more, err)
		}
		w.Died()
		if *heard != want {
			t.Error("heard after Last")
		}
	}
}

// F16: the group is gone when init is seen dead. The parent's count tells, less
// what the siblings account for; a look that could not look says so.
func TestF16OOMOfAGroupThatIsGone(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(f *fakeHost)
		struck bool
		oom    bool
	}{
		{"no kill", func(*fakeHost) {}, true, false},
		{"a kill", func(f *fakeHost) { f.write("cgroup/pod/memory.events", "oom_kill 6\n") }, true, true},
		{"a kill, and init not struck", func(f *fakeHost) { f.write("cgroup/pod/memory.events", "oom_kill 6\n") }, false, false},
		{"a sibling's kill", func(f *fakeHost) {
			f.write("cgroup/pod/memory.events", "oom_kill 6\n")
			f.write("cgroup/pod/other/memory.events", "oom_kill 4\n")
		}, true, false},
		{"a new sibling's kill", func(f *fakeHost) {
			f.write("cgroup/pod/memory.events", "oom_kill 6\n")
			f.write("cgroup/pod/young/memory.events", "oom_kill 1\n")
		}, true, false},
		{"a sibling's and ours", func(f *fakeHost) {
			f.write("cgroup/pod/memory.events", "oom_kill 7\n")
			f.write("cgroup/pod/other/memory.events", "oom_kill 4\n")
		}, true, true},
		{"a kill, and a sibling has gone", func(f *fakeHost) {
			f.write("cgroup/pod/memory.events", "oom_kill 6\n")
			f.remove("cgroup/pod/other")
		}, true, false},
		{"the parent is gone too", func(f *fakeHost) { f.remove("cgroup/pod") }, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, w, heard := podGroup(t)
			c.change(f)
			f.remove("cgroup/pod/c")
			w.Died()
			oom, err := w.Last(c.struck)
			if oom != c.oom || *heard > 0 {
				t.Errorf("OOM %v, want %v; heard %d times", oom, c.oom, *heard)
			}
			if !oom && !errno.IsMissing(err) || oom && err != nil {
				t.Errorf("error %v", err)
			}
		})
	}
}

// F16: a kill that was told before the group went is not told again.
func TestF16OOMToldOnce(t *testing.T) {
	f, w, heard := podGroup(t)
	f.write("cgroup/pod/c/memory.events", "oom_kill 3\n")
	f.write("cgroup/pod/memory.events", "oom_kill 6\n")
	w.look()
	f.remove("cgroup/pod/c")
	if more, _ := w.Last(true); more || *heard != 1 {
		t.Errorf("told %d times, and Last %v", *heard, more)
	}
}
