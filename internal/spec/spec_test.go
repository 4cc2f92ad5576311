package spec

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestDefault(t *testing.T) {
	s := Default(Options{Rootfs: "/r", Args: []string{"a"}, Env: []string{"K=V"}, Cgroup: "/x"})
	if s.Version != version || s.Root.Path != "/r" || s.Process.Cwd != "/" || s.Linux.CgroupsPath != "/x" || s.Process.Terminal {
		t.Errorf("got %+v", s)
	}
	if !slices.Contains(s.Process.Env, "K=V") || slices.ContainsFunc(s.Process.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") }) {
		t.Errorf("environment %q", s.Process.Env)
	}
	if !hasNamespace(s, specs.PIDNamespace) || hasNamespace(Default(Options{HostPID: true}), specs.PIDNamespace) {
		t.Error("the pid namespace is not as asked for")
	}
}

func hasNamespace(s *specs.Spec, kind specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

func TestFromBundle(t *testing.T) {
	dir := t.TempDir()
	text := `{"ociVersion":"1.0.2","process":{"terminal":true,"args":["sh"],"cwd":"/","env":["A=B"]},"root":{"path":"fs"},
	"mounts":[{"destination":"/d","type":"bind","source":"data"},{"destination":"/e","type":"none","source":"e","options":["rbind"]},{"destination":"/proc","type":"proc","source":"proc"}],"linux":{}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := FromBundle(dir, Options{Cgroup: "/x", Env: []string{"C=D"}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Root.Path != filepath.Join(dir, "fs") || s.Process.Terminal || s.Linux.CgroupsPath != "/x" || s.Process.Args[0] != "sh" {
		t.Errorf("got %+v", s)
	}
	for i, want := range []string{filepath.Join(dir, "data"), filepath.Join(dir, "e"), "proc"} {
		if s.Mounts[i].Source != want {
			t.Errorf("mount %d comes from %q", i, s.Mounts[i].Source)
		}
	}
	if s, err := FromBundle(dir, Options{Args: []string{"true"}, Dir: "/tmp", Terminal: true}); err != nil || s.Process.Args[0] != "true" || s.Process.Cwd != "/tmp" || !s.Process.Terminal {
		t.Errorf("got %+v, %v", s.Process, err)
	}
}

func TestFromBundleRefuses(t *testing.T) {
	if _, err := FromBundle(t.TempDir(), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no config.json: %v", err)
	}
	for _, text := range []string{"{", "{}", `{"process":{},"root":{}}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := FromBundle(dir, Options{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestBusybox makes a root filesystem and runs a command in it.
func TestBusybox(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	if err := Busybox(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(dir, "bin/echo"), "hello").Output()
	if err != nil || string(out) != "hello\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if st, err := os.Stat(filepath.Join(dir, "tmp")); err != nil || st.Mode()&os.ModeSticky == 0 {
		t.Errorf("/tmp: %v, %v", st.Mode(), err)
	}
	if err := Busybox(t.Context(), dir); !errors.Is(err, os.ErrExist) {
		t.Errorf("over an existing one: %v", err)
	}
}

func TestIsStatic(t *testing.T) {
	if isStatic("/etc/passwd") || isStatic("/no/such/file") {
		t.Error("no program at all was taken for a static one")
	}
	if sh, err := exec.LookPath("mount"); err == nil && isStatic(sh) {
		t.Error("a dynamic program was taken for a static one")
	}
}
