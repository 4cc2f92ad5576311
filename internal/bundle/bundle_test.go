package bundle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/larkshim/lark/internal/errno"
)

func open(t testing.TB) *Bundle {
	t.Helper()
	b, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func put(t testing.TB, b *Bundle, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.Path(), name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRow06OpenRefuses(t *testing.T) { // row 6
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path string
		is   func(error) bool
	}{
		"relative":   {"bundle", errdefs.IsInvalidArgument},
		"empty":      {"", errdefs.IsInvalidArgument},
		"not clean":  {dir + "/../" + filepath.Base(dir), errdefs.IsInvalidArgument},
		"missing":    {filepath.Join(dir, "none"), errno.IsMissing},
		"a file":     {file, errdefs.IsInvalidArgument},
		"a link":     {link, errdefs.IsInvalidArgument},
		"NUL inside": {dir + "/a\x00b", errdefs.IsInvalidArgument},
		"too long":   {"/" + strings.Repeat("a", 5000), errdefs.IsInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := Open(c.path)
			if err == nil {
				b.Close()
			}
			if !c.is(err) {
				t.Errorf("Open(%.60q): %v", c.path, err)
			}
		})
	}
}

func TestRow06StrangersDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("only root can give a directory away")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errdefs.IsInvalidArgument(err) {
		t.Errorf("Open of another user's directory: %v", err)
	}
	// A group of a user namespace is containerd's doing and fine.
	if err := errors.Join(os.Chown(dir, 0, 12345), os.Chmod(dir, 0o710)); err != nil {
		t.Fatal(err)
	}
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

// What is written goes to the directory that was verified.
func TestRow06DirectoryIsHeldOpen(t *testing.T) {
	parent := t.TempDir()
	path, moved := filepath.Join(parent, "b"), filepath.Join(parent, "moved")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := errors.Join(os.Rename(path, moved), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := b.WriteInitExit(InitExit{PID: 7, At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(moved, exitFile)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(path, exitFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the usurper got the file: %v", err)
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	b := open(t)
	want := &options.Options{BinaryName: "crun", Root: "/run/x", SystemdCgroup: true, IoUid: 4294967295}
	if err := b.WriteOptions(want); err != nil {
		t.Fatal(err)
	}
	got, err := b.ReadOptions()
	if err != nil || !proto.Equal(got, want) {
		t.Errorf("ReadOptions = %v, %v", got, err)
	}
	exit := InitExit{PID: 4242, Status: 137, At: time.Now().UTC()}
	if err := b.WriteInitExit(exit); err != nil {
		t.Fatal(err)
	}
	if again, err := b.ReadInitExit(); err != nil || again.PID != exit.PID || again.Status != exit.Status || !again.At.Equal(exit.At) {
		t.Errorf("ReadInitExit = %+v, %v", again, err)
	}
}

// A new life of a bundle does not end as the old one did.
func TestWriteOptionsForgetsAnExit(t *testing.T) {
	b := open(t)
	if err := errors.Join(b.WriteInitExit(InitExit{PID: 7, At: time.Now()}), b.WriteOptions(nil)); err != nil {
		t.Fatal(err)
	}
	if e, err := b.ReadInitExit(); !errno.IsMissing(err) {
		t.Errorf("ReadInitExit = %+v, %v", e, err)
	}
}

func TestAddressAndSocketDir(t *testing.T) {
	b := open(t)
	if dir, err := b.ReadSocketDir(); !errno.IsMissing(err) {
		t.Errorf("with no link: %q, %v", dir, err)
	}
	for _, want := range []string{"/run/a", "/run/b"} {
		if err := errors.Join(b.WriteAddress("unix://"+want), b.WriteSocketDir(want)); err != nil {
			t.Fatal(err)
		}
		if dir, err := b.ReadSocketDir(); err != nil || dir != want {
			t.Errorf("socket directory %q, %v", dir, err)
		}
		if data, err := os.ReadFile(filepath.Join(b.Path(), addressFile)); err != nil || string(data) != "unix://"+want {
			t.Errorf("address %q, %v", data, err)
		}
	}
	put(t, b, "file", "")
	if err := os.Rename(filepath.Join(b.Path(), "file"), filepath.Join(b.Path(), socketDirLink)); err != nil {
		t.Fatal(err)
	}
	if dir, err := b.ReadSocketDir(); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a file in the link's place: %q, %v", dir, err)
	}
	if entries, err := os.ReadDir(b.Path()); err != nil || len(entries) != 2 {
		t.Errorf("left in the bundle: %v, %v", entries, err)
	}
}

// The formats are containerd's: its files are read, and it can read ours.
func TestRecordsAreContainerds(t *testing.T) {
	b := open(t)
	put(t, b, optionsFile, `{"systemd_cgroup":true,"binary_name":"runc-fp","a_later_field":1}`)
	put(t, b, exitFile, `{"Timestamp":"2026-09-01T10:00:00.5Z","Pid":77,"Status":3}`)
	o, err := b.ReadOptions()
	if err != nil || !o.SystemdCgroup || o.BinaryName != "runc-fp" {
		t.Errorf("ReadOptions = %v, %v", o, err)
	}
	if e, err := b.ReadInitExit(); err != nil || e.PID != 77 || e.Status != 3 {
		t.Errorf("ReadInitExit = %v, %v", e, err)
	}

	if err := b.WriteOptions(&options.Options{BinaryName: "crun", NoPivotRoot: true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		optionsFile: `{"no_pivot_root":true,"binary_name":"crun"}`,
		runtimeFile: "crun",
	} {
		if data, err := os.ReadFile(filepath.Join(b.Path(), name)); err != nil || string(data) != want {
			t.Errorf("%s = %q, %v; want %q", name, data, err, want)
		}
	}
}

func TestReadOptionsOfOlderShims(t *testing.T) {
	b := open(t)
	if _, err := b.ReadOptions(); !errno.IsMissing(err) {
		t.Errorf("with no file: %v", err)
	}
	put(t, b, runtimeFile, "crun")
	if o, err := b.ReadOptions(); err != nil || o.BinaryName != "crun" {
		t.Errorf("with the runtime file alone: %v, %v", o, err)
	}
	put(t, b, optionsFile, `{"root":"/r"}`)
	if o, err := b.ReadOptions(); err != nil || o.BinaryName != "crun" || o.Root != "/r" {
		t.Errorf("with both: %v, %v", o, err)
	}
	put(t, b, optionsFile, `{"root":`)
	if _, err := b.ReadOptions(); !errdefs.IsInvalidArgument(err) {
		t.Errorf("half-written: %v", err)
	}
}

func TestReadInitExitRefuses(t *testing.T) {
	b := open(t)
	if _, err := b.ReadInitExit(); !errno.IsMissing(err) {
		t.Errorf("with no file: %v", err)
	}
	for _, content := range []string{"", "{", "null", "{}", `{"Timestamp":"2026-09-01T10:00:00Z","Pid":-1,"Status":0}`,
		`{"Timestamp":"2026-09-01T10:00:00Z","Pid":7,"Status":-1}`, `{"Timestamp":"0001-01-01T00:00:00Z","Pid":7,"Status":0}`,
		`{"Timestamp":"2026-09-01T10:00:00Z","Pid":7,"Status":4294967296}`, strings.Repeat(" ", maxRecordSize+1)} {
		put(t, b, exitFile, content)
		if e, err := b.ReadInitExit(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%.40q: %+v, %v", content, e, err)
		}
	}
}

func TestPIDFiles(t *testing.T) {
	b := open(t)
	exec, err := ParseExecID("init")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadPID(exec); !errno.IsMissing(err) {
		t.Errorf("with no file: %v", err)
	}
	for content, want := range map[string]int{"4242": 4242, "4242\n": 4242, "2": 2} {
		put(t, b, filepath.Base(b.PIDPath(exec)), content)
		if got, err := b.ReadPID(exec); err != nil || got != want {
			t.Errorf("%q: %d, %v", content, got, err)
		}
	}
	for _, content := range []string{"", "\n", "abc", "-1", "0", "1", "+5", "0x10", "5 6", "99999999999", "4294967297", " 5"} { // rows 31, R5
		put(t, b, filepath.Base(b.PIDPath(exec)), content)
		if got, err := b.ReadPID(exec); !errdefs.IsFailedPrecondition(err) || got != 0 {
			t.Errorf("%q: %d, %v", content, got, err)
		}
	}
	if _, err := b.ReadPID(ExecID{}); !errno.IsMissing(err) {
		t.Errorf("an exec called init has init's pid file: %v", err)
	}
	for range 2 {
		if err := b.RemovePID(exec); err != nil {
			t.Error(err)
		}
	}
}

// Nothing that lies in a record's place is followed, waited for or swallowed.
func TestReadRefusesWhatIsNoFile(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"link":      func(p string) error { return os.Symlink("/etc/hostname", p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o600) },
		"huge":      func(p string) error { return os.WriteFile(p, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			path := filepath.Join(b.Path(), specFile)
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			if name == "huge" {
				if err := os.Truncate(path, 50<<20); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.ReadSpec(); !errdefs.IsInvalidArgument(err) {
				t.Errorf("ReadSpec: %v", err)
			}
		})
	}
}

// A reader sees a whole record or none, and no temporary file stays.
func TestWritesAreAtomic(t *testing.T) {
	b := open(t)
	at := time.Now()
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for range 200 {
				if err := b.WriteInitExit(InitExit{PID: 1000 + i, Status: uint32(i), At: at}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		e, err := b.ReadInitExit()
		if errno.IsMissing(err) {
			continue
		}
		if err != nil || e.PID != 1000+int(e.Status) {
			t.Fatalf("read %+v, %v", e, err)
		}
	}
	entries, err := os.ReadDir(b.Path())
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the bundle: %v, %v", entries, err)
	}
}

func TestWriteIsPrivateWhateverTheUmask(t *testing.T) {
	b := open(t)
	old := unix.Umask(0)
	defer unix.Umask(old)
	if err := b.WriteOptions(nil); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(b.Path(), optionsFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

// With no space left a write fails, says so, and leaves what was there (row 46).
func TestRow46WriteWithNoSpace(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4096,nr_inodes=10"); err != nil {
		t.Fatalf("a tmpfs to fill: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.WriteInitExit(InitExit{PID: 7, At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := b.WriteOptions(&options.Options{Root: strings.Repeat("x", 8192)}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("WriteOptions on a full disk: %v", err)
	}
	if e, err := b.ReadInitExit(); err != nil || e.PID != 7 {
		t.Errorf("what was there before: %+v, %v", e, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left over: %v", entries)
	}
}
