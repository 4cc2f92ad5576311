package field

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/internal/order"
)

const (
	// bound is for all calls and waits of one test; a test takes about a second
	// where nothing else runs.
	bound = 3 * time.Minute
	// pollEvery is the pause between two looks at what has no event.
	pollEvery = 10 * time.Millisecond
)

// daemons are those that run, by their binary. All tests share one for each
// version: starting one takes longer than most of the tests.
var daemons = map[string]*daemon.Daemon{}

func TestMain(m *testing.M) {
	base, err := os.MkdirTemp("/tmp", "lkenv")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	runtimeDirs = [2]string{base + "/xdg", base + "/tmp"}
	status := m.Run()
	for binary := range daemons {
		if err := stop(binary); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.RemoveAll(base)
	os.Exit(status)
}

func stop(binary string) error {
	d := daemons[binary]
	delete(daemons, binary)
	return d.Stop(context.Background())
}

// runtimeDirs are what the daemons' environment names, XDG_RUNTIME_DIR and
// TMPDIR, made anew by every stage.
var runtimeDirs [2]string

// stage is one test under one containerd.
type stage struct {
	*testing.T
	*daemon.Client
	ctx  context.Context
	d    *daemon.Daemon
	rt   string // the name of the shim's runtime
	dir  string // for files of this test
	runc string // an OCI runtime of this test's own, which can be moved away
}

// under runs a test under each containerd. At its end nothing may be left, and
// the events must have come in order.
func under(t *testing.T, test func(s *stage)) {
	for _, binary := range daemon.Containerds() {
		t.Run(cmp.Or(daemon.VersionOf(binary), binary), func(t *testing.T) { play(t, binary, test) })
	}
}

func play(t *testing.T, binary string, test func(s *stage)) {
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	s := &stage{T: t, ctx: ctx, dir: t.TempDir()}
	s.serve(binary)
	t.Cleanup(func() {
		if t.Failed() { // what is left must not fail other tests
			t.Log(s.d.Log())
			if err := stop(binary); err != nil {
				t.Error(err)
			}
		}
	})
	checker := order.New()
	events, err := s.Subscribe(ctx, func(e daemon.Envelope) { checker.Observe(e.Event) })
	s.must(err)
	test(s)
	if !t.Failed() {
		if left := s.d.NothingLeft(ctx); len(left) > 0 {
			t.Errorf("left over: %q", left)
		}
		events.Close()
		for _, v := range checker.Finish() {
			t.Error(v)
		}
	}
}

// serve finds or starts the daemon, and makes a client in a namespace of its own.
func (s *stage) serve(binary string) {
	s.Helper()
	shim := daemon.ShimFor(binary)
	for _, dir := range runtimeDirs {
		s.must(os.MkdirAll(dir, 0o700))
	}
	d := daemons[binary]
	if d == nil {
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		var err error
		d, err = daemon.Start(s.ctx, daemon.Config{
			Binary: binary, ShimDir: filepath.Dir(shim), Log: log,
			Env: []string{"XDG_RUNTIME_DIR=" + runtimeDirs[0], "TMPDIR=" + runtimeDirs[1]},
		})
		s.must(err)
		daemons[binary] = d
	}
	s.d = d
	name, err := daemon.RuntimeName(shim)
	s.must(err)
	s.rt = name
	ns, _, _ := strings.Cut(s.Name(), "/")
	s.Client, err = d.Client(s.ctx, strings.ToLower(ns))
	s.must(err)
	system, err := exec.LookPath(cmp.Or(os.Getenv("LARK_E2E_RUNC"), "runc"))
	s.must(err)
	s.runc = filepath.Join(s.dir, "runc")
	data, err := os.ReadFile(system)
	s.must(err)
	s.must(os.WriteFile(s.runc, data, 0o755))
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// id is the name of a container in this test: no two tests share one, for cgroups.
func (s *stage) id(name string) string { return s.Namespace() + "-" + name }

// create makes a container and its task, and returns the pid of its init.
func (s *stage) create(name string, o daemon.SpecOpts, io daemon.Stdio) (uint32, error) {
	s.Helper()
	rootfs, err := s.d.Rootfs()
	s.must(err)
	id := s.id(name)
	s.must(s.CreateContainer(s.ctx, id, s.d.Runc(s.rt, s.runc), s.d.Spec(id, o)))
	return s.CreateTask(s.ctx, id, daemon.BindRootfs(rootfs), io)
}

// run makes a container and starts it.
func (s *stage) run(name string, o daemon.SpecOpts, io daemon.Stdio) int {
	s.Helper()
	pid, err := s.create(name, o, io)
	s.must(err)
	_, err = s.Start(s.ctx, s.id(name), "")
	s.must(err)
	return int(pid)
}

// sleeper runs a container that stays.
func (s *stage) sleeper(name string) int {
	s.Helper()
	return s.run(name, daemon.SpecOpts{Args: []string{"sleep", "100000"}}, daemon.Stdio{})
}

// wait wants the exit status of init or an exec.
func (s *stage) wait(name, exec string, status uint32) {
	s.Helper()
	e, err := s.Wait(s.ctx, s.id(name), exec)
	if err != nil || e.Status != status {
		s.Errorf("%s %s ended with %d, want %d: %v", name, exec, e.Status, status, err)
	}
}

// end kills a container, if it runs, and deletes it.
func (s *stage) end(name string) {
	s.Helper()
	id := s.id(name)
	if err := s.Kill(s.ctx, id, "", uint32(unix.SIGKILL), true); err != nil && !errdefs.IsNotFound(err) {
		s.Errorf("kill %s: %v", name, err)
	}
	if _, err := s.Wait(s.ctx, id, ""); err != nil {
		s.Errorf("wait for %s: %v", name, err)
	}
	s.remove(name)
}

// remove deletes the task of a container that has stopped, and its record.
func (s *stage) remove(name string) {
	s.Helper()
	if _, err := s.Delete(s.ctx, s.id(name), ""); err != nil {
		s.Errorf("delete %s: %v", name, err)
	}
	s.must(s.DeleteContainer(s.ctx, s.id(name)))
}

// alive reports whether a process runs: neither gone nor a zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := bytes.TrimSpace(stat[bytes.LastIndexByte(stat, ')')+1:])
	return len(state) > 0 && state[0] != 'Z' && state[0] != 'X'
}

// until waits for a condition that has no event.
func (s *stage) until(what string, cond func() bool) {
	s.Helper()
	for !cond() {
		select {
		case <-s.ctx.Done():
			s.Fatalf("%s: never", what)
		case <-time.After(pollEvery):
		}
	}
}

// away moves a file away, until the function that it returns is called.
func (s *stage) away(path string) (back func()) {
	s.Helper()
	s.must(os.Rename(path, path+".moved"))
	return func() {
		s.Helper()
		s.must(os.Rename(path+".moved", path))
	}
}

// fifo is an output that the test reads.
type fifo struct {
	s    *stage
	path string
	f    *os.File
}

func (s *stage) fifo(name string) *fifo {
	s.Helper()
	path := filepath.Join(s.dir, name)
	s.must(unix.Mkfifo(path, 0o600))
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	s.must(err)
	f := os.NewFile(uintptr(fd), path)
	s.Cleanup(func() { f.Close() })
	return &fifo{s: s, path: path, f: f}
}

// rest reads to the end, which comes when the shim lets go: the shim must hold it.
func (f *fifo) rest() string {
	f.s.Helper()
	deadline, _ := f.s.ctx.Deadline()
	f.s.must(f.f.SetReadDeadline(deadline))
	b, err := io.ReadAll(f.f)
	f.s.must(err)
	return string(b)
}

// line reads one line.
func (f *fifo) line() string {
	f.s.Helper()
	deadline, _ := f.s.ctx.Deadline()
	f.s.must(f.f.SetReadDeadline(deadline))
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := f.f.Read(b); err != nil {
			f.s.Fatalf("after %q: %v", line, err)
		}
		if line = append(line, b[0]); b[0] == '\n' {
			return string(line)
		}
	}
}

// content reads a file of the test.
func (s *stage) content(name string) string {
	s.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	s.must(err)
	return string(b)
}

// script writes an executable shell script.
func (s *stage) script(name, body string) string {
	s.Helper()
	path := filepath.Join(s.dir, name)
	s.must(os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755))
	return path
}

// shared lets a directory of the test be seen in the container.
func (s *stage) shared(spec *specs.Spec) {
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/run", Type: "bind", Source: s.dir, Options: []string{"rbind", "rw"}})
}

func toJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // a spec can always be marshalled
	}
	return b
}
