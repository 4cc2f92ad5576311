package rootfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// root needs the right to mount; a machine without it cannot say anything about this package.
func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// bundleDir is an empty bundle on a tmpfs of its own, so that what a test leaves mounted cannot outlive it.
func bundleDir(t *testing.T) string {
	t.Helper()
	root(t)
	dir := t.TempDir()
	must(t, unix.Mount("test", dir, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() {
		if left := mountsBelow(t, dir); len(left) > 0 {
			t.Errorf("left mounted: %q", left)
		}
		must(t, unix.Unmount(dir, unix.MNT_DETACH))
	})
	bundle := filepath.Join(dir, "bundle")
	must(t, os.Mkdir(bundle, 0o700))
	return bundle
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	points, err := kernel().mountPoints(dir + "/")
	must(t, err)
	return points
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func tmpfs(target string) *types.Mount {
	return &types.Mount{Type: "tmpfs", Source: "tmpfs", Target: target, Options: []string{"mode=755", "nosuid"}}
}

func bind(source, target string, options ...string) *types.Mount {
	return &types.Mount{Type: "bind", Source: source, Target: target, Options: append([]string{"rbind"}, options...)}
}

func TestMountAndUnmount(t *testing.T) {
	b := bundleDir(t)
	src := filepath.Join(b, "src")
	write(t, src+"/inside", "hello")
	must(t, os.MkdirAll(src+"/proc", 0o755))
	write(t, src+"/hosts", "")
	m := New(nil)
	old := syscall.Umask(0o077)
	dir, err := m.Mount(b, []*types.Mount{bind(src, ""), tmpfs("proc"), bind(src+"/inside", "/hosts", "ro")})
	syscall.Umask(old)
	must(t, err)
	if dir != filepath.Join(b, "rootfs") || read(dir+"/inside") != "hello" || read(dir+"/hosts") != "hello" {
		t.Errorf("%s: %q %q", dir, read(dir+"/inside"), read(dir+"/hosts"))
	}
	if err := os.WriteFile(dir+"/hosts", nil, 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to a read-only bind: %v", err)
	}
	if n := len(mountsBelow(t, b)); n != 3 {
		t.Errorf("%d mounts", n)
	}
	for range 2 {
		must(t, m.Unmount(b))
		if left := mountsBelow(t, b); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
	st, err := os.Stat(dir)
	must(t, err)
	if st.Mode().Perm() != 0o711 {
		t.Errorf("rootfs has mode %v", st.Mode())
	}
}

// F01: a bundle that is elsewhere has its mount with it; nothing says that there is none.
func TestF01UnmountOfABundleElsewhere(t *testing.T) {
	b := bundleDir(t)
	m := New(nil)
	_, err := m.Mount(b, []*types.Mount{tmpfs("")})
	must(t, err)
	must(t, os.Rename(b, b+".away"))
	if err := m.Unmount(b); !errno.IsMissing(err) || errdefs.IsNotFound(err) {
		t.Errorf("%v, want that it is missing", err)
	}
	must(t, os.Rename(b+".away", b))
	must(t, m.Unmount(b))
	if left := mountsBelow(t, b); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestNoMountsTouchNothing(t *testing.T) {
	b := bundleDir(t)
	if dir, err := New(nil).Mount(b, nil); dir != "" || err != nil {
		t.Errorf("%q, %v", dir, err)
	}
	if _, err := os.Stat(b + "/rootfs"); !os.IsNotExist(err) {
		t.Error("rootfs was made")
	}
	must(t, New(nil).Unmount(b))
}

// The N-th mount fails: the ones before are unmounted, and only a directory that was there before stays (row 27).
func TestRow27PartialFailure(t *testing.T) {
	for _, was := range []bool{false, true} {
		for n := range 4 {
			b := bundleDir(t)
			if was {
				must(t, os.Mkdir(b+"/rootfs", 0o700))
			}
			mounts := []*types.Mount{tmpfs(""), tmpfs(""), tmpfs("")}
			bad := &types.Mount{Type: "no-such-fs", Source: "x"}
			mounts = append(mounts[:n:n], append([]*types.Mount{bad}, mounts[n:]...)...)
			_, err := New(nil).Mount(b, mounts)
			if !errno.IsMissing(err) || !strings.Contains(err.Error(), fmt.Sprintf("component %d", n)) {
				t.Errorf("failure at %d: %v", n, err)
			}
			if left := mountsBelow(t, b); len(left) > 0 {
				t.Errorf("failure at %d leaves %q", n, left)
			}
			if _, err := os.Stat(b + "/rootfs"); os.IsNotExist(err) == was {
				t.Errorf("rootfs was there: %v, now: %v", was, err)
			}
		}
	}
}

func TestRow27BadRequests(t *testing.T) {
	for name, c := range map[string]struct {
		m     *types.Mount
		class func(error) bool
	}{
		"target climbs":        {bind("/tmp", "../outside"), errdefs.IsInvalidArgument},
		"target climbs inside": {bind("/tmp", "a/../../outside"), errdefs.IsInvalidArgument},
		"target missing":       {bind("/tmp", "nowhere"), errno.IsMissing},
		"source missing":       {bind("/no/such/dir", ""), errno.IsMissing},
		"target is a symlink":  {bind("/tmp", "link"), errdefs.IsFailedPrecondition},
		"symlink on the way":   {bind("/tmp", "link/sub"), errdefs.IsFailedPrecondition},
		"NUL":                  {bind("/tmp\x00x", ""), errdefs.IsInvalidArgument},
		"unknown fs":           {&types.Mount{Type: "nofs"}, errno.IsMissing},
		"internal option":      {bind("/tmp", "", "X-containerd.mkfs"), errdefs.IsInvalidArgument},
		"half an id mapping":   {bind("/tmp", "", "uidmap=0:1000:1"), errdefs.IsInvalidArgument},
		"bad id mapping":       {bind("/tmp", "", "uidmap=0:1000", "gidmap=0:0:1"), errdefs.IsInvalidArgument},
		"id out of range":      {bind("/tmp", "", "uidmap=0:4294967296:1", "gidmap=0:0:1"), errdefs.IsInvalidArgument},
		"empty id mapping":     {bind("/tmp", "", "uidmap=0:1:0", "gidmap=0:0:1"), errdefs.IsInvalidArgument},
		"too long":             {&types.Mount{Type: "tmpfs", Options: []string{strings.Repeat("x", 5000)}}, errdefs.IsInvalidArgument},
		"no such fuse":         {&types.Mount{Type: "fuse.lark-nothing", Source: "x"}, func(err error) bool { return err != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			b := bundleDir(t)
			outside := filepath.Join(filepath.Dir(b), "outside")
			must(t, os.MkdirAll(outside+"/sub", 0o755))
			src := filepath.Join(b, "src")
			must(t, os.Mkdir(src, 0o755))
			must(t, os.Symlink("../../outside", src+"/link"))
			must(t, os.Symlink("../../outside", b+"/elsewhere"))
			_, err := New(nil).Mount(b, []*types.Mount{bind(src, ""), c.m})
			if !c.class(err) {
				t.Errorf("%v", err)
			}
			if left := mountsBelow(t, filepath.Dir(b)); len(left) != 1 { // the bundle's own tmpfs is not below itself
				if len(left) != 0 {
					t.Errorf("left %q", left)
				}
			}
		})
	}
	if _, err := New(nil).Mount(bundleDir(t), make([]*types.Mount, maxMounts+1)); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	if _, err := New(nil).Mount("relative", []*types.Mount{tmpfs("")}); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	if err := New(nil).Unmount("relative"); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	if _, err := New(nil).Mount("/no/such/bundle", []*types.Mount{tmpfs("")}); !errno.IsMissing(err) {
		t.Error(err)
	}
}

// rootfs itself is a symlink: neither mounted on nor unmounted through.
func TestRootfsIsASymlink(t *testing.T) {
	b := bundleDir(t)
	outside := filepath.Join(filepath.Dir(b), "outside")
	must(t, os.Mkdir(outside, 0o755))
	must(t, os.Symlink("../outside", b+"/rootfs"))
	m := New(nil)
	if _, err := m.Mount(b, []*types.Mount{tmpfs("")}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("mount: %v", err)
	}
	must(t, unix.Mount("x", outside, "tmpfs", 0, ""))
	defer unix.Unmount(outside, 0)
	must(t, m.Unmount(b))
	if len(mountsBelow(t, filepath.Dir(b))) != 1 {
		t.Error("unmounted what the symlink points to")
	}
	must(t, unix.Unmount(outside, 0))
}

// A component of a mount point below rootfs is replaced by a symlink to the host: the unmount does not follow it.
func TestUnmountDoesNotFollow(t *testing.T) {
	b := bundleDir(t)
	outside := filepath.Join(filepath.Dir(b), "outside")
	must(t, os.MkdirAll(outside+"/point", 0o755))
	must(t, unix.Mount("x", outside+"/point", "tmpfs", 0, ""))
	must(t, os.MkdirAll(b+"/rootfs/a/point", 0o755))
	must(t, unix.Mount("x", b+"/rootfs/a/point", "tmpfs", 0, ""))
	s := kernel()
	table, err := s.table()
	must(t, err)
	s.table = func() ([]byte, error) { return table, nil } // as it was read before the replacement
	must(t, os.Rename(b+"/rootfs/a", b+"/rootfs/b"))
	must(t, os.Symlink("../../outside", b+"/rootfs/a"))
	open, err := s.openBundle(b)
	must(t, err)
	defer open.close()
	must(t, open.unmountBelow("rootfs"))
	if got := mountsBelow(t, filepath.Dir(b)); len(got) != 2 {
		t.Errorf("mounts now: %q", got)
	}
	must(t, unix.Unmount(outside+"/point", 0))
	must(t, unix.Unmount(b+"/rootfs/b/point", 0))
}

// Somebody works in the mount: it is gone all the same, and the caller is told that all is well.
func TestUnmountBusy(t *testing.T) {
	b := bundleDir(t)
	m := New(nil)
	dir, err := m.Mount(b, []*types.Mount{tmpfs("")})
	must(t, err)
	f, err := os.Create(dir + "/open")
	must(t, err)
	defer f.Close()
	must(t, m.Unmount(b))
	if left := mountsBelow(t, b); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if _, err := f.WriteString("still works"); err != nil {
		t.Error(err)
	}
}

// layers makes n layer directories with long names, each with a file of its own.
func layers(t *testing.T, base string, n int) []string {
	t.Helper()
	var dirs []string
	for i := range n {
		d := filepath.Join(base, "snapshots-of-a-store-with-a-long-name", fmt.Sprint(i), "fs")
		write(t, fmt.Sprintf("%s/file%d", d, i), fmt.Sprint(i))
		dirs = append(dirs, d)
	}
	return dirs
}

func overlay(t *testing.T, base string, lower []string, options ...string) *types.Mount {
	t.Helper()
	must(t, os.MkdirAll(base+"/up", 0o755))
	must(t, os.MkdirAll(base+"/work", 0o755))
	return &types.Mount{Type: "overlay", Source: "overlay", Options: append([]string{
		"index=off", "workdir=" + base + "/work", "upperdir=" + base + "/up", "lowerdir=" + strings.Join(lower, ":"),
	}, options...)}
}

// Options longer than a page: the layers are named from where they all are, and neither the process's working
// directory nor, as far as threads go, anything else has changed.
func TestOverlayLongOptions(t *testing.T) {
	b := bundleDir(t)
	lower := layers(t, filepath.Dir(b), 100)
	o := overlay(t, filepath.Dir(b), lower)
	if n := len(strings.Join(o.Options, ",")); n < 2*maxData {
		t.Fatalf("only %d bytes", n)
	}
	before, err := os.Getwd()
	must(t, err)
	m := New(nil)
	for range 8 {
		dir, err := m.Mount(b, []*types.Mount{o})
		must(t, err)
		if read(dir+"/file0") != "0" || read(dir+"/file99") != "99" {
			t.Errorf("%q %q", read(dir+"/file0"), read(dir+"/file99"))
		}
		must(t, m.Unmount(b))
	}
	threads, err := filepath.Glob("/proc/self/task/*/cwd")
	must(t, err)
	for _, cwd := range threads {
		if at, err := os.Readlink(cwd); err == nil && at != before {
			t.Errorf("a thread stands in %s", at)
		}
	}
}

func TestOverlayShort(t *testing.T) {
	b := bundleDir(t)
	m := New(nil)
	dir, err := m.Mount(b, []*types.Mount{overlay(t, filepath.Dir(b), layers(t, filepath.Dir(b), 2))})
	must(t, err)
	write(t, dir+"/new", "written")
	if read(filepath.Dir(b)+"/up/new") != "written" {
		t.Error("the upper directory does not have it")
	}
	must(t, m.Unmount(b))
}

func TestIDMapped(t *testing.T) {
	b := bundleDir(t)
	base := filepath.Dir(b)
	lower := layers(t, base, 3)
	guarded := 0
	m := New(guarding(func(fn func() error) error { guarded++; return fn() }))
	maps := []string{"uidmap=0:100000:65536", "gidmap=0:200000:65536"}
	for name, mount := range map[string]*types.Mount{
		"bind":    bind(lower[1], "", maps...),
		"overlay": overlay(t, base, lower, maps...),
	} {
		dir, err := m.Mount(b, []*types.Mount{mount})
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Stat(dir+"/file1", &st))
		if st.Uid != 100000 || st.Gid != 200000 {
			t.Errorf("%s: owned by %d:%d", name, st.Uid, st.Gid)
		}
		if n := len(mountsBelow(t, b)); n != 1 {
			t.Errorf("%s: %d mounts", name, n)
		}
		if _, err := os.Lstat(b + "/" + lowerName); !os.IsNotExist(err) {
			t.Errorf("%s: the layers' mount point was left: %v", name, err)
		}
		must(t, m.Unmount(b))
	}
	if guarded != 2 {
		t.Errorf("%d guarded calls", guarded)
	}
	if _, err := m.Mount(b, []*types.Mount{overlay(t, base, []string{"/a", "/b"}, maps...)}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("layers all over the place: %v", err)
	}
	refused := errors.New("no more children")
	m = New(guarding(func(func() error) error { return refused }))
	if _, err := m.Mount(b, []*types.Mount{bind(lower[1], "", maps...)}); !errors.Is(err, refused) || len(mountsBelow(t, b)) > 0 {
		t.Errorf("guard refuses: %v", err)
	}
}

// What a killed Mount of an idmapped overlay leaves is gone after Unmount.
func TestUnmountDropsLayers(t *testing.T) {
	b := bundleDir(t)
	must(t, os.Mkdir(b+"/"+lowerName, 0o700))
	must(t, unix.Mount("x", b+"/"+lowerName, "tmpfs", 0, ""))
	must(t, New(nil).Unmount(b))
	if _, err := os.Lstat(b + "/" + lowerName); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func TestLoop(t *testing.T) {
	b := bundleDir(t)
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("no loop devices on this machine")
	}
	image := filepath.Join(b, "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 4<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		t.Skipf("no ext4 here: %v %s", err, out)
	}
	m := New(nil)
	for _, options := range [][]string{{"loop"}, {"loop", "ro"}} {
		dir, err := m.Mount(b, []*types.Mount{{Type: "ext4", Source: image, Options: options}})
		must(t, err)
		if _, err := os.Stat(dir + "/lost+found"); err != nil {
			t.Error(err)
		}
		must(t, m.Unmount(b))
	}
	out, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range out {
		if strings.HasPrefix(read(f), image) {
			t.Errorf("%s still has the image", f)
		}
	}
}

func TestFrom(t *testing.T) {
	for _, c := range []struct{ lower, dir, want string }{
		{"/s/1/fs:/s/2/fs", "/s", "1/fs:2/fs"},
		{"/s/1:/s/10:/s/100", "/s", "1:10:100"},
		{"/s/1", "/s", "1"},
		{"/s/a:/t/b", "", ""},
		{"/s/a:/s/a/b", "/s", "a:a/b"},
		{"/s/a::/s/data", "", ""},
		{"rel:/s/a", "", ""},
		{`/s/a\:b:/s/c`, "/s", `a\:b:c`},
		{`/s\:s/a:/s\:s/c`, "", ""},
		{`\`, "", ""},
		{`/s/a:/s/b\`, "", ""},
		{`/s/a:/s/b\\`, "/s", `a:b\\`},
		{"", "", ""},
	} {
		dir, data := from([]string{"x=1", "lowerdir=" + c.lower, "y"})
		if dir != c.dir {
			t.Errorf("%q: dir %q, want %q", c.lower, dir, c.dir)
		}
		if got := strings.Join(data, ","); dir != "" && got != "x=1,lowerdir="+c.want+",y" {
			t.Errorf("%q: %q", c.lower, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("overlay", "a", "t/x", "lowerdir=/a:/b,ro,uidmap=0:1:2,gidmap=0:1:2")
	f.Add("bind", "/", "../..", "rbind,loop,direct-io")
	f.Add("overlay", "a", "", `lowerdir=\`)
	f.Fuzz(func(t *testing.T, fstype, source, target, options string) {
		rs, err := parse([]*types.Mount{{Type: fstype, Source: source, Target: target, Options: strings.Split(options, ",")}})
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("class of %v", err)
			}
			return
		}
		for _, s := range rs[0].target {
			if s == "" || s == "." || s == ".." || strings.Contains(s, "/") {
				t.Errorf("target %q has step %q", target, s)
			}
		}
		if dir, data := from(rs[0].data); dir != "" && len(data) != len(rs[0].data) {
			t.Errorf("%q became %q", rs[0].data, data)
		}
	})
}

// A thread that ends takes the children with it that were forked from it with a parent-death signal (prctl(2)). The
// mount of an overlay with long options, which needs a working directory for itself, ends none.
func TestLongOptionsKillNoChildren(t *testing.T) {
	b := bundleDir(t)
	o := overlay(t, filepath.Dir(b), layers(t, filepath.Dir(b), 100))
	m := New(nil)
	for range 20 {
		cmd := exec.Command("/bin/cat")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		in, err := cmd.StdinPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = m.Mount(b, []*types.Mount{o})
		must(t, err)
		must(t, m.Unmount(b))
		must(t, in.Close())
		if err := cmd.Wait(); err != nil {
			t.Errorf("a child ends with %v", err)
		}
	}
}
