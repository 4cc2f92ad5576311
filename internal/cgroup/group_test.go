package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

func all(path string) string {
	return "5:cpu,cpuacct:" + path + "\n4:memory:" + path + "\n3:pids:" + path + "\n2:devices:" + path + "\n1:freezer:" + path + "\n0::" + path + "\n"
}

func TestOf(t *testing.T) {
	for _, c := range []struct {
		name, mounts, self, cgroups, state string
		kill, memory                       string
		unified                            bool
		err                                error
	}{
		{"v2", v2Mounts, "0::/shim\n", "0::/k8s/c1\n", "S", "/k8s/c1", "/k8s/c1", true, nil},
		{"v2 zombie keeps its group", v2Mounts, "0::/shim\n", "0::/k8s/c1\n", "Z", "/k8s/c1", "/k8s/c1", true, nil},
		{"v2 removed under a zombie", v2Mounts, "0::/shim\n", "0::/k8s/c1 (deleted)\n", "Z", "/k8s/c1", "/k8s/c1", true, nil},
		{"F28: v2 named so", v2Mounts, "0::/shim\n", "0::/k8s/c1 (deleted)\n", "S", "/k8s/c1 (deleted)", "/k8s/c1 (deleted)", true, nil},
		{"F28: v1 named so", v1Mounts, v1Self, all("/c1 (deleted)"), "S", "/pids/c1 (deleted)", "/memory/c1 (deleted)", false, nil},
		{"v2 with a stray v1 mount below", v2Mounts + "50 31 0:50 / CG/net_cls rw - cgroup none rw,net_cls\n", "0::/shim\n1:net_cls:/\n", "1:net_cls:/\n0::/c\n", "S", "/c", "/c", true, nil},
		{"v1", v1Mounts, v1Self, all("/c1"), "S", "/pids/c1", "/memory/c1", false, nil},
		{"v1 path with a colon", v1Mounts, v1Self, all("/kubepods:burstable:c1"), "S", "/pids/kubepods:burstable:c1", "/memory/kubepods:burstable:c1", false, nil},
		{"hybrid uses v1", hybridMounts, v1Self, all("/c1"), "S", "/pids/c1", "/memory/c1", false, nil},
		{"v1 zombie names the roots", v1Mounts, v1Self, all("/"), "Z", "", "", false, errno.ErrMissing},
		{"v1 no pids controller of its own", v1Mounts, v1Self, "4:memory:/c1\n3:pids:/\n2:devices:/c1\n", "S", "/devices/c1", "/memory/c1", false, nil},
		{"in the shim's own group", v1Mounts, v1Self, all("/shim"), "S", "", "/memory/shim", false, nil},
		{"in a group above the shim's", v1Mounts, all("/pod/shim"), all("/pod"), "S", "", "/memory/pod", false, nil},
		{"beside the shim, same prefix", v1Mounts, all("/pod-shim"), all("/pod"), "S", "/pids/pod", "/memory/pod", false, nil},
		{"below the shim's", v2Mounts, "0::/pod\n", "0::/pod/c\n", "S", "/pod/c", "/pod/c", true, nil},
		{"living in the root", v2Mounts, "0::/shim\n", "0::/\n", "S", "", "", true, nil},
		{"outside our cgroup namespace", v2Mounts, "0::/shim\n", "0::/../other\n", "S", "", "", true, errno.ErrMissing},
		{"nothing mounted", "", "0::/\n", "0::/c\n", "S", "", "", false, errno.ErrMissing},
		{"garbage", v2Mounts, "0::/shim\n", "what\n", "S", "", "", true, errdefs.ErrInternal},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t).layout(c.mounts, c.self)
			f.process("42", c.cgroups, c.state)
			g, err := f.host().Of(42)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil {
				if !g.IsZero() {
					t.Error("an error came with a group")
				}
				return
			}
			if got := g.KillDir(); got != at(f.cgfs, c.kill) {
				t.Errorf("KillDir = %q, want %q", got, at(f.cgfs, c.kill))
			}
			if want := filepath.Join(f.cgfs, c.memory); g.Dir("memory") != want {
				t.Errorf("memory = %q, want %q", g.Dir("memory"), want)
			}
			if g.Unified() != c.unified {
				t.Errorf("unified = %v", g.Unified())
			}
		})
	}
}

// at is dir+p, but "" for "".
func at(dir, p string) string {
	if p == "" {
		return ""
	}
	return dir + p
}

// F28: a dead process, and a cgroup that is named like a removed one: which of the
// two it was in cannot be told, so it is not said. The shim's own cgroup may be
// named so.
func TestF28CgroupNamedDeleted(t *testing.T) {
	f := newFake(t).layout(v2Mounts, "0::/shim (deleted)\n")
	f.process("42", "0::/c1 (deleted)\n", "Z")
	f.process("43", "0::/shim (deleted)\n", "S")
	f.mkdir("cgroup/c1 (deleted)")
	h := f.host()
	if g, err := h.Of(42); !errno.IsMissing(err) || !g.IsZero() {
		t.Errorf("%v, %v", g, err)
	}
	if g, err := h.Of(43); err != nil || g.KillDir() != "" {
		t.Errorf("in the shim's own cgroup: %v, %v", g.KillDir(), err)
	}
}

func TestOfRefusesPids(t *testing.T) {
	h := newFake(t).layout(v2Mounts, "0::/\n").host()
	for _, pid := range []int{0, -1} {
		if _, err := h.Of(pid); !errdefs.IsInvalidArgument(err) {
			t.Errorf("pid %d: %v", pid, err)
		}
	}
	if _, err := h.Of(4242); !errno.IsMissing(err) {
		t.Errorf("a process that is not there: %v", err)
	}
}

// A shim that runs in a container sees a part of each hierarchy, and paths from the root of the whole.
func TestOfInsideAContainer(t *testing.T) {
	f := newFake(t).layout("35 31 0:32 /docker/abc CG/memory rw - cgroup cgroup rw,memory\n", "4:memory:/docker/abc\n")
	f.process("42", "4:memory:/docker/abc/c1\n", "S")
	f.process("43", "4:memory:/docker/abcdef\n", "S")
	h := f.host()
	g, err := h.Of(42)
	if err != nil || g.KillDir() != f.cgfs+"/memory/c1" {
		t.Errorf("%q, %v", g.KillDir(), err)
	}
	if _, err := h.Of(43); !errno.IsMissing(err) {
		t.Errorf("a group that is not mounted here: %v", err)
	}
}

// A group that cannot be looked for is not one that is not there.
func TestFromSpecThatCannotLook(t *testing.T) {
	for _, mounts := range []string{v1Mounts, v2Mounts} {
		f := newFake(t).layout(mounts, v1Self)
		f.mkdir("cgroup/ctr")
		f.mkdir("cgroup/memory/ctr")
		for errno, class := range map[unix.Errno]func(error) bool{unix.EMFILE: errdefs.IsResourceExhausted, unix.EIO: errdefs.IsInternal} {
			sys := kernel()
			h := f.hostWith(sys)
			open := sys.open
			sys.open = func(path string, flags int) (int, error) {
				if flags&unix.O_PATH != 0 {
					return -1, errno
				}
				return open(path, flags)
			}
			if _, err := h.FromSpec("/ctr", "ctr", false); !class(err) {
				t.Errorf("%v: %v", errno, err)
			}
		}
	}
}

func TestFromSpec(t *testing.T) {
	for _, c := range []struct {
		name, mounts, self, path string
		systemd                  bool
		exists                   string
		want                     string
		err                      error
	}{
		{"absolute", v2Mounts, "0::/shim\n", "/k8s/c1", false, "/k8s/c1", "/k8s/c1", nil},
		{"absolute v1", v1Mounts, v1Self, "/k8s/c1", false, "/pids/k8s/c1", "/pids/k8s/c1", nil},
		{"empty is the id", v1Mounts, all("/"), "", false, "/devices/id1", "/devices/id1", nil},
		{"relative to the shim's", v1Mounts, v1Self, "c1", false, "/pids/shim/c1", "/pids/shim/c1", nil},
		{"relative to the root", v1Mounts, v1Self, "c1", false, "/pids/c1", "/pids/c1", nil},
		{"relative on v2: beside the shim", v2Mounts, "0::/a/shim\n", "c1", false, "/a/c1", "/a/c1", nil},
		{"dots stay inside", v2Mounts, "0::/shim\n", "/../../c1", false, "/c1", "/c1", nil},
		{"the root", v2Mounts, "0::/shim\n", "/..", false, "", "", errdefs.ErrInvalidArgument},
		{"gone", v2Mounts, "0::/shim\n", "/c1", false, "", "", errno.ErrMissing},
		{"the shim's own", v2Mounts, "0::/shim\n", "/shim", false, "/shim", "", errno.ErrMissing},
		{"systemd", v2Mounts, "0::/shim\n", "kubepods-pod1.slice:cri-containerd:c1", true, "/kubepods.slice/kubepods-pod1.slice/cri-containerd-c1.scope", "/kubepods.slice/kubepods-pod1.slice/cri-containerd-c1.scope", nil},
		{"systemd v1", v1Mounts, v1Self, ":lark:c1", true, "/pids/system.slice/lark-c1.scope", "/pids/system.slice/lark-c1.scope", nil},
		{"systemd default of crun", v2Mounts, "0::/shim\n", "", true, "/system.slice/crun-id1.scope", "/system.slice/crun-id1.scope", nil},
		{"systemd root slice, no prefix", v2Mounts, "0::/shim\n", "-.slice::c1", true, "/c1.scope", "/c1.scope", nil},
		{"systemd slice", v2Mounts, "0::/shim\n", "::c1.slice", true, "/system.slice/c1.slice", "/system.slice/c1.slice", nil},
		{"systemd two parts", v2Mounts, "0::/shim\n", "a:b", true, "", "", errdefs.ErrInvalidArgument},
		{"systemd slash", v2Mounts, "0::/shim\n", "a.slice:b:../c", true, "", "", errdefs.ErrInvalidArgument},
		{"systemd bad slice", v2Mounts, "0::/shim\n", "a--b.slice:b:c", true, "", "", errdefs.ErrInvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t).layout(c.mounts, c.self)
			if c.exists != "" {
				f.mkdir("cgroup" + c.exists)
			}
			g, err := f.host().FromSpec(c.path, "id1", c.systemd)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err == nil && g.KillDir() != f.cgfs+c.want {
				t.Errorf("KillDir = %q, want %q", g.KillDir(), f.cgfs+c.want)
			}
		})
	}
}

func TestLocateFallsBackToTheSpec(t *testing.T) {
	f := newFake(t).layout(v1Mounts, v1Self)
	f.process("42", all("/"), "Z")
	h := f.host()
	if _, err := h.Locate(42, "/c1", "id", false); !errno.IsMissing(err) {
		t.Errorf("neither: %v", err)
	}
	f.mkdir("cgroup/pids/c1")
	if g, err := h.Locate(42, "/c1", "id", false); err != nil || g.KillDir() != f.cgfs+"/pids/c1" {
		t.Errorf("zombie: %q, %v", g.KillDir(), err)
	}
	f.process("43", all("/c2"), "S")
	if g, err := h.Locate(43, "/c1", "id", false); err != nil || g.KillDir() != f.cgfs+"/pids/c2" {
		t.Errorf("alive: %q, %v", g.KillDir(), err)
	}
}

func TestZeroGroup(t *testing.T) {
	var g Group
	if g.KillDir() != "" || g.Dir("memory") != "" || g.Exists() || !g.IsZero() || g.Unified() {
		t.Error("the zero group has something")
	}
	if err := errors.Join(g.Remove(), g.EnableControllers()); err != nil {
		t.Error(err)
	}
	w, err := g.WatchOOM(func() { t.Error("OOM") })
	if !errno.IsMissing(err) || last(w) {
		t.Error(err)
	}
	if _, err := g.Stats(); !errno.IsMissing(err) {
		t.Error(err)
	}
}

func TestMountTableEscapes(t *testing.T) {
	f := newFake(t)
	f.layout(`31 23 0:28 / `+f.dir+`/c\040g\134x rw - cgroup2 cgroup2 rw`+"\nshort line\n1 2 3 - cgroup2\n", "0::/\n")
	if got := f.host().v2.dir; got != f.dir+`/c g\x` {
		t.Errorf("%q", got)
	}
}

// realGroup makes the container's group on the machine itself: below the test's own in each hierarchy of version 1, or
// in the given directories.
func realGroup(t *testing.T, h *Host, controllers ...string) Group {
	t.Helper()
	name := "/lark-cgroup-" + strconv.Itoa(os.Getpid()) + "-" + filepath.Base(t.Name())
	for _, c := range controllers {
		dir := filepath.Join(h.v1[c].dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(dir) })
	}
	g, err := h.FromSpec(name, "x", false)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// legacy is this machine's layout. The tests on real hierarchies of version 1 need such a machine and say so.
func legacy(t *testing.T) *Host {
	t.Helper()
	h, err := NewHost()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 || h.unified || h.v1["memory"].dir == "" {
		t.Skip("needs root and cgroup version 1")
	}
	return h
}

// A zombie on the real kernel: Of refuses rather than naming the root, FromSpec still finds the group.
func TestOfARealZombie(t *testing.T) {
	h := legacy(t)
	g := realGroup(t, h, "pids", "memory")
	cmd := exec.Command("/bin/sh", "-c", "read x; exit 3")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := h.JoinShim(filepath.Base(g.KillDir()), cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	alive, err := h.Of(cmd.Process.Pid)
	if err != nil || alive.KillDir() != g.KillDir() {
		t.Fatalf("alive: %q, %v; want %q", alive.KillDir(), err, g.KillDir())
	}
	if err := g.Remove(); !errdefs.IsUnavailable(err) {
		t.Errorf("removing a populated group: %v", err)
	}
	in.Close()
	waitZombie(t, cmd.Process.Pid)
	// Whether a zombie still names its group is the kernel's affair; what must not be is a group with a wrong KillDir.
	dead, err := h.Of(cmd.Process.Pid)
	if err == nil && dead.KillDir() != g.KillDir() || err != nil && !errno.IsMissing(err) {
		t.Errorf("zombie: %q, %v", dead.KillDir(), err)
	}
	if again, err := h.Locate(cmd.Process.Pid, "/"+filepath.Base(g.KillDir()), "x", false); err != nil || again.KillDir() != g.KillDir() {
		t.Errorf("zombie by its spec: %q, %v", again.KillDir(), err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Error(err)
	}
	os.Mkdir(filepath.Join(g.Dir("pids"), "below"), 0o755)
	if err := errors.Join(g.Remove(), g.Remove()); err != nil || g.Exists() {
		t.Errorf("removing: %v", err)
	}
}
