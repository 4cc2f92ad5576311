package ctr

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/larkshim/lark/e2e/daemon"
)

// bound is for all of one test's commands together.
const bound = 2 * time.Minute

// shell is one daemon, and ctr as it is typed.
type shell struct {
	t       *testing.T
	ctx     context.Context
	d       *daemon.Daemon
	ctr     string
	runtime []string // the flags of ctr run that choose the shim
}

// open starts a containerd with the shim in its PATH.
func open(t *testing.T, containerd string, cfg daemon.Config) *shell {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	shim := daemon.ShimFor(containerd)
	name, err := daemon.RuntimeName(shim)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Binary, cfg.ShimDir = containerd, filepath.Dir(shim)
	d, err := daemon.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &shell{t: t, ctx: ctx, d: d, ctr: filepath.Join(filepath.Dir(containerd), "ctr"), runtime: []string{"--runtime", name}}
	t.Cleanup(s.close)
	return s
}

// close ends the daemon. ctr left the OCI runtime at its default root.
func (s *shell) close() {
	if s.t.Failed() {
		s.t.Log(s.d.Log())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if left := s.d.NothingLeft(ctx); len(left) > 0 {
		s.t.Errorf("left over: %q", left)
	}
	if err := s.d.Stop(ctx); err != nil {
		s.t.Error(err)
	}
	root := "/run/containerd/runc/" + s.d.Tag()
	if err := os.Remove(root); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("the runtime's state: %v", err)
	}
}

// try runs ctr and returns what it printed and its exit status.
func (s *shell) try(args ...string) (out string, status int) {
	s.t.Helper()
	cmd := exec.CommandContext(s.ctx, s.ctr, append([]string{"--address", s.d.Address(), "--namespace", s.d.Tag()}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = s.d.Env(), s.d.Dir(), &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("ctr %q: %v", args, err)
	}
	if stderr.Len() > 0 {
		s.t.Logf("ctr %q: %s", args, stderr.String())
	}
	return stdout.String(), cmd.ProcessState.ExitCode()
}

// want runs ctr and wants its output and status.
func (s *shell) want(out string, status int, args ...string) {
	s.t.Helper()
	if gotOut, got := s.try(args...); got != status || gotOut != out {
		s.t.Errorf("ctr %q: %q, status %d; want %q, status %d", args, gotOut, got, out, status)
	}
}

// run is the beginning of a `ctr run`.
func (s *shell) run(id string, flags ...string) []string {
	s.d.Made(s.d.Tag(), id)
	args := append([]string{"run", "--fifo-dir", filepath.Join(s.d.Dir(), "fifo")}, s.runtime...)
	return append(args, flags...)
}

// importImage makes the image and imports it.
func (s *shell) importImage() {
	s.t.Helper()
	rootfs, err := s.d.Rootfs()
	if err != nil {
		s.t.Fatal(err)
	}
	archive := filepath.Join(s.d.Dir(), "image.tar")
	if err := WriteImage(archive, rootfs); err != nil {
		s.t.Fatal(err)
	}
	if out, status := s.try("image", "import", archive); status != 0 {
		s.t.Fatalf("import: %s", out)
	}
}

// execs checks `ctr task exec` in a running container, and the end of it.
func (s *shell) execs(id string) {
	s.t.Helper()
	fifos := []string{"--fifo-dir", filepath.Join(s.d.Dir(), "fifo")}
	execArgs := func(exec string, args ...string) []string {
		return append(append([]string{"task", "exec", "--exec-id", exec}, fifos...), append([]string{id}, args...)...)
	}
	s.want("from an exec\n", 4, execArgs("one", "sh", "-c", "echo from an exec; exit 4")...)
	s.want("", 0, execArgs("two", "true")...)
	if out, _ := s.try("task", "ls"); !strings.Contains(out, id) || !strings.Contains(out, "RUNNING") {
		s.t.Errorf("task ls: %q", out)
	}
	s.want("", 0, "task", "kill", "--signal", "SIGKILL", id)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // ctr can only be asked again
		if out, _ := s.try("task", "ls"); strings.Contains(out, "STOPPED") {
			break
		}
		if time.Now().After(deadline) {
			s.t.Fatal("the task did not stop")
		}
	}
	if _, status := s.try("task", "rm", id); status != 0 && status != 137 {
		s.t.Errorf("task rm: status %d", status) // ctr 1.6 repeats the task's status
	}
	s.want("", 0, "container", "rm", id)
}

func TestRunc(t *testing.T) {
	for _, containerd := range daemon.Containerds() {
		t.Run(cmp.Or(daemon.VersionOf(containerd), containerd), func(t *testing.T) {
			s := open(t, containerd, daemon.Config{})
			s.importImage()
			s.want("hello\n", 3, append(s.run("once", "--rm"), ImageName, "once", "sh", "-c", "echo hello; exit 3")...)
			s.want("", 0, append(s.run("true", "--rm"), ImageName, "true", "true")...)
			s.want("", 0, append(s.run("long", "--detach"), ImageName, "long", "sleep", "1000")...)
			s.execs("long")
		})
	}
}

// TestCrun needs a mount namespace without the cgroup2 mount where v1
// controllers are mounted beside it, and a spec of version 1.0.2. ctr takes
// --runc-binary for io.containerd.runc.v2 only; for any other name the OCI
// runtime is chosen by a file, --runtime-config-path.
func TestCrun(t *testing.T) {
	for _, containerd := range daemon.Containerds() {
		t.Run(cmp.Or(daemon.VersionOf(containerd), containerd), func(t *testing.T) {
			s := open(t, containerd, daemon.Config{WithoutCgroup2: true})
			crun, err := exec.LookPath("crun")
			if err != nil {
				t.Fatal(err)
			}
			if s.runtime[1] == "io.containerd.runc.v2" {
				s.runtime = append(s.runtime, "--runc-binary", crun, "--runc-root", s.d.RuncRoot())
			} else {
				config := filepath.Join(s.d.Dir(), "crun.toml")
				write(t, config, []byte("BinaryName = \""+crun+"\"\nRoot = \""+s.d.RuncRoot()+"\"\n"))
				s.runtime = append(s.runtime, "--runtime-config-path", config)
			}
			s.want("hello\n", 3, append(s.run("once", "--rm"), "--config", s.spec("once", "sh", "-c", "echo hello; exit 3"), "once")...)
			s.want("", 0, append(s.run("long", "--detach"), "--config", s.spec("long", "sleep", "1000"), "long")...)
			s.execs("long")
		})
	}
}

// spec writes a container's spec, whose root filesystem is the daemon's own.
func (s *shell) spec(id string, args ...string) string {
	s.t.Helper()
	rootfs, err := s.d.Rootfs()
	if err != nil {
		s.t.Fatal(err)
	}
	spec := s.d.Spec(id, daemon.SpecOpts{Args: args, Mutate: func(s *specs.Spec) { s.Root.Path = rootfs }})
	b, err := json.Marshal(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.d.Dir(), id+".json")
	write(s.t, path, b)
	return path
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
