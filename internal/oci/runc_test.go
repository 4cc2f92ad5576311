package oci

// runc_test.go: the calls against the real runc.

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
)

// real is a container of the real runc.
type real struct {
	*Runtime
	owner *children.Owner
	space *children.PIDNamespace
	id    string
	dir   string
}

// newReal makes a bundle with a busybox in it.
func newReal(t testing.TB, args ...string) *real {
	t.Helper()
	dir := t.TempDir()
	makeBundle(t, dir, args) // before there is an owner: it forks by itself
	owner, err := children.NewOwner(slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "root"), 0o700); err != nil {
		t.Fatal(err)
	}
	// LARK_TEST_RUNTIME tries another runtime than runc.
	r, err := New(Config{Binary: os.Getenv("LARK_TEST_RUNTIME"), Root: filepath.Join(dir, "root"), Dir: dir, Owner: owner,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatalf("these tests need runc in the PATH: %v", err)
	}
	c := &real{Runtime: r, owner: owner, space: children.NewNamespace(), id: filepath.Base(filepath.Dir(dir)), dir: dir}
	t.Cleanup(func() {
		defer func() { c.owner.Close() }()
		if err := c.Delete(t.Context(), c.id, true); err != nil && !errdefs.IsNotFound(err) && !errors.Is(err, t.Context().Err()) {
			t.Error(err)
		}
	})
	return c
}

// reopen gives the container an owner again after its was closed.
func (c *real) reopen(t testing.TB) {
	t.Helper()
	owner, err := children.NewOwner(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.owner, c.Runtime.owner = owner, owner
}

func makeBundle(t testing.TB, dir string, args []string) {
	t.Helper()
	bin := filepath.Join(dir, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("these tests need busybox-static: %v", err)
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "true", "cat", "ls", "readlink"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("runc", "spec", "--bundle", dir).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	config := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	spec.Process.Terminal = false
	spec.Process.Args = args
	spec.Root.Readonly = false
	if text, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// up creates the container; init waits for Start.
func (c *real) up(t testing.TB) *children.Child {
	t.Helper()
	init, err := c.Create(t.Context(), c.id, CreateCall{PidFile: filepath.Join(c.dir, "init.pid"), Namespace: c.space, IO: &files3{}})
	if err != nil {
		t.Fatal(err)
	}
	return init
}

// files3 is the simplest IO: files, or nothing.
type files3 struct{ out, err *os.File }

func (f *files3) Set(cmd *exec.Cmd) {
	if f.out != nil {
		cmd.Stdout = f.out
	}
	if f.err != nil {
		cmd.Stderr = f.err
	}
}
func (f *files3) CloseAfterStart() error { return nil }
func (f *files3) ConsolePath() string    { return "" }

func process(args ...string) []byte {
	data, err := json.Marshal(specs.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/"})
	if err != nil {
		panic(err)
	}
	return data
}

func (c *real) exec(t testing.TB, name string, io IO, args ...string) (*children.Child, error) {
	t.Helper()
	return c.Exec(t.Context(), c.id, ExecCall{PidFile: filepath.Join(c.dir, name+".pid"), Process: process(args...), Namespace: c.space, IO: io})
}

func TestRunc(t *testing.T) {
	c := newReal(t, "sleep", "1000")
	ctx := t.Context()
	if err := c.Delete(ctx, c.id, false); !errdefs.IsNotFound(err) {
		t.Errorf("delete before create: %v", err)
	}
	init := c.up(t)
	if s, err := c.State(ctx, c.id); err != nil || s.Status != "created" || s.Pid != init.Pid() {
		t.Errorf("%+v, %v", s, err)
	}
	if err := c.Start(ctx, c.id); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx, c.id); !errdefs.IsUnknown(err) || !strings.HasPrefix(err.Error(), "OCI runtime start failed: ") {
		t.Errorf("second start: %v", err)
	}
	for name, call := range map[string]func() error{
		"pause":  func() error { return c.Pause(ctx, c.id) },
		"resume": func() error { return c.Resume(ctx, c.id) },
		"update": func() error {
			limit := int64(64 << 20)
			return c.Update(ctx, c.id, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}})
		},
	} {
		if name == "resume" { // maps have no order
			if err := c.Pause(ctx, c.id); err != nil {
				t.Error(err)
			}
		}
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "pause" {
			if err := c.Resume(ctx, c.id); err != nil {
				t.Error(err)
			}
		}
	}
	if pids, err := c.Pids(ctx, c.id); err != nil || !slices.Equal(pids, []int{init.Pid()}) {
		t.Errorf("%v, %v", pids, err)
	}
	if err := c.Kill(ctx, c.id, unix.SIGKILL, false); err != nil {
		t.Error(err)
	}
	if exit, err := init.Wait(ctx); err != nil || exit.Status != 137 {
		t.Errorf("%+v, %v", exit, err)
	}
	if err := c.Kill(ctx, c.id, unix.SIGKILL, false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("kill of the dead: %v", err)
	}
	if err := c.Delete(ctx, c.id, false); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"delete": c.Delete(ctx, c.id, true),
		"kill":   c.Kill(ctx, c.id, unix.SIGKILL, true),
		"pause":  c.Pause(ctx, c.id),
	} {
		// runc delete --force of what is not there is no error to runc.
		if name == "delete" && err == nil {
			continue
		}
		if errdefs.IsNotFound(err) != (name != "pause") || err == nil {
			t.Errorf("%s of what is gone: %v", name, err)
		}
	}
	left, err := filepath.Glob(c.dir + "/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		if !slices.Contains([]string{"config.json", "init.pid", "log.json", "root", "rootfs"}, filepath.Base(path)) {
			t.Errorf("left behind: %s", path)
		}
	}
}

// What a failed exec says is what Docker makes exit codes of, and each of many
// that fail at once is told its own reason.
func TestRuncExecErrors(t *testing.T) {
	c := newReal(t, "sleep", "1000")
	c.up(t)
	if err := c.Start(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			name := fmt.Sprintf("nobody-%02d", i)
			_, err := c.exec(t, name, &files3{}, name)
			want := fmt.Sprintf(`exec: "%s": executable file not found in $PATH`, name)
			if err == nil || !strings.HasPrefix(err.Error(), "OCI runtime exec failed: ") || !strings.Contains(err.Error(), want) {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if _, err := c.exec(t, "e", &files3{}, "/etc"); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("%v", err)
	}
	if _, err := c.exec(t, "e", &files3{}, "/bin"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("%v", err)
	}
	if _, err := c.Exec(t.Context(), c.id, ExecCall{PidFile: c.dir + "/e.pid", Process: []byte("{"), Namespace: c.space, IO: &files3{}}); err == nil {
		t.Error("an exec of half a JSON")
	}
}

// An exec's process inherits no descriptor of ours, and our umask: the shim's is
// to be 022.
func TestRuncExecInherits(t *testing.T) {
	c := newReal(t, "sleep", "1000")
	c.up(t)
	if err := c.Start(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(c.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	child, err := c.exec(t, "e", &files3{out: out}, "sh", "-c", "umask; ls /proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := child.Wait(t.Context()); err != nil || exit.Status != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	mask, err := umask()
	if err != nil {
		t.Fatal(err)
	}
	// 3 is ls's own, the directory.
	if got, want := strings.Fields(string(text)), []string{fmt.Sprintf("%04o", mask), "0", "1", "2", "3"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestRuncSaysWhatItIs(t *testing.T) {
	c := newReal(t, "true")
	if v, err := c.Version(t.Context()); err != nil || !strings.HasPrefix(v, "runc version ") {
		t.Errorf("%q, %v", v, err)
	}
	if f, err := c.Features(t.Context()); err != nil || !slices.Contains(f.MountOptions, "rro") {
		t.Errorf("%+v, %v", f, err)
	}
}

// Create fails: nothing is left, and the message is runc's.
func TestRuncCreateFails(t *testing.T) {
	c := newReal(t, "no-such-program")
	_, err := c.Create(t.Context(), c.id, CreateCall{PidFile: filepath.Join(c.dir, "init.pid"), Namespace: c.space, IO: &files3{}})
	if err == nil || !strings.HasPrefix(err.Error(), "OCI runtime create failed: ") || !strings.Contains(err.Error(), `"no-such-program": executable file not found in $PATH`) {
		t.Errorf("%v", err)
	}
	if _, err := c.State(t.Context(), c.id); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}
