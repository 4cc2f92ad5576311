package bootstrap

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/bundle"
)

// The socket's path is the one that containerd's tests compute: here the value of
// its formula, computed by other means (sha256sum).
func TestSocketPath(t *testing.T) {
	ns, err := bundle.ParseNamespace("default")
	if err != nil {
		t.Fatal(err)
	}
	got, err := socketPath("/run/containerd/s", "/run/containerd/containerd.sock", ns, "c1")
	const want = "/run/containerd/s/d25aa4ef11a84e954e74a5bcff06557d0b6ea8d0c00243896f29826694bbd888"
	if err != nil || got != want {
		t.Errorf("socket %s, %v", got, err)
	}
	if _, err := socketPath("/"+strings.Repeat("d", 41), "a", ns, "b"); err != nil {
		t.Errorf("42 bytes of directory: %v", err)
	}
	if _, err := socketPath("/"+strings.Repeat("d", 42), "a", ns, "b"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("43 bytes of directory: %v", err)
	}
}

func TestSocketDir(t *testing.T) {
	mode := func(path string) os.FileMode {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode().Perm()
	}
	root := t.TempDir()
	missing := filepath.Join(root, "a", "b")
	d, err := openSocketDir(missing)
	if err != nil || mode(missing) != 0o700 {
		t.Fatalf("a missing one: %v, mode %v", err, mode(missing))
	}
	d.close()

	for _, wide := range []os.FileMode{0o777, 0o711, 0o750, 0o600} {
		if err := os.Chmod(missing, wide); err != nil {
			t.Fatal(err)
		}
		d, err := openSocketDir(missing)
		if err != nil || mode(missing) != 0o700 {
			t.Errorf("mode %v: %v, then %v", wide, err, mode(missing))
		} else {
			d.close()
		}
	}

	link, file, other := filepath.Join(root, "link"), filepath.Join(root, "file"), filepath.Join(root, "other")
	if err := errors.Join(os.Symlink(missing, link), os.WriteFile(file, nil, 0o600), os.Mkdir(other, 0o700), os.Chown(other, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, file, other, "relative", root + "/a/../a"} {
		if d, err := openSocketDir(path); err == nil {
			d.close()
			t.Errorf("%s was taken", path)
		}
	}
}

func TestSocketIsPrivateFromBirth(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	path := filepath.Join(t.TempDir(), "s")
	f, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err := os.Lstat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestLockIsBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	open := func() *socketDir {
		d, err := openSocketDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.close)
		return d
	}
	first, second := open(), open()
	if err := first.lock(path, time.Second); err != nil {
		t.Fatal(err)
	}
	if err := second.lock(path, 10*time.Millisecond); !errdefs.IsUnavailable(err) {
		t.Errorf("a second lock: %v", err)
	}
	first.unlock(path)
	if err := second.lock(path, time.Minute); err != nil {
		t.Errorf("after the first: %v", err)
	}
	// A file that was removed is made again, and what is locked is what others find.
	if err := os.Remove(filepath.Join(dir, lockFile)); err != nil {
		t.Fatal(err)
	}
	if err := first.lock(path, time.Minute); err != nil {
		t.Errorf("after the file was removed: %v", err)
	}
	if err := open().lock(path, 10*time.Millisecond); !errdefs.IsUnavailable(err) {
		t.Errorf("a second lock of the new file: %v", err)
	}
}

// F22: a helper that is stopped while it holds its lock delays no start and no end of
// another pod's shim.
func TestF22StoppedHelperDelaysNoOther(t *testing.T) {
	d := newDaemon(t)
	stopped := d.container("c1")
	dir, err := openSocketDir(d.sockets())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.close()
	path := strings.TrimPrefix(stopped.address(d.sockets(), "c1"), "unix://")
	if err := dir.lock(path, time.Minute); err != nil {
		t.Fatal(err)
	}
	shim := d.container("c2").serving() // a start
	shim.shutdown()                     // an end
	if _, err := os.Lstat(shim.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the other's socket is left: %v", err)
	}
	if out, err := stopped.run(stopped.params(), "start"); err == nil || !strings.Contains(out, "another start") {
		t.Errorf("start of the same: %v: %s", err, out)
	}
}

// A server that ends removes its own socket, and not one that has its name.
func TestRemoveSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	make := func() identity {
		f, err := listen(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		id, err := identityOf(path)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := make()
	if err := os.Rename(path, path+"-kept"); err != nil { // its inode number stays taken
		t.Fatal(err)
	}
	second := make()
	if err := removeSocket(path, first); err != nil {
		t.Error(err)
	}
	if now, err := identityOf(path); err != nil || now != second {
		t.Errorf("the new socket was removed: %v", err)
	}
	for range 2 {
		if err := removeSocket(path, second); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its own socket is left: %v", err)
	}
}

func TestRow61RemoveStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := removeStale(path); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	f, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := removeStale(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a living socket was removed: %v", err)
	}
	f.Close()
	if err := removeStale(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dead socket is left: %v", err)
	}
}

// asStranger runs fn on a thread of another user. SO_PEERCRED tells the credentials
// of the thread that connected, or listened; the thread ends with fn.
func asStranger(t *testing.T, fn func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		const keep = ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, 65534, keep); errno != 0 {
			done <- errno
			return
		}
		done <- fn()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// openDir is a directory that strangers may use.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "lark-b")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRow65Peers(t *testing.T) { // row 65
	path := filepath.Join(openDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	accept := func(connect func() error) error {
		t.Helper()
		if err := connect(); err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return samePeer(conn)
	}
	dial := func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err := accept(dial); err != nil {
		t.Errorf("our own user: %v", err)
	}
	if err := accept(func() error { asStranger(t, dial); return nil }); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a stranger: %v", err)
	}
}

// A stranger's listener at the group's path is not joined, and not removed either.
func TestRow65StrangersSocketIsNotJoined(t *testing.T) {
	path := filepath.Join(openDir(t), "s")
	asStranger(t, func() error {
		f, err := listen(path)
		if err == nil {
			t.Cleanup(func() { f.Close() })
		}
		return err
	})
	if alive, err := answers(path); alive || !errdefs.IsPermissionDenied(err) {
		t.Errorf("answers: %v, %v", alive, err)
	}
}
