package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/shimclient"
)

// The binary as it is built, with a runtime that is the test's.

const patience = time.Minute

func TestMain(m *testing.M) {
	fakeruntime.Main()
	os.Exit(runAll(m))
}

// build is one way to build the shim.
type build struct {
	flags []string
	once  sync.Once
	dir   string
	path  string
	err   error
}

var (
	usual = &build{}
	pie   = &build{flags: []string{"-buildmode=pie"}}
)

func runAll(m *testing.M) int {
	defer func() {
		for _, b := range []*build{usual, pie} {
			if b.dir != "" {
				os.RemoveAll(b.dir)
			}
		}
	}()
	return m.Run()
}

// binary is the shim, built once.
func (b *build) binary(t *testing.T) string {
	t.Helper()
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "lark-shim-"); b.err != nil {
			return
		}
		b.path = filepath.Join(b.dir, "containerd-shim-lark-v2")
		args := append([]string{"build", "-buildvcs=false", "-o", b.path}, b.flags...)
		out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
		if err != nil {
			b.err = fmt.Errorf("go build: %w: %s", err, out)
		}
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.path
}

// stage is a running shim with one bundle, and the events that it sent.
type stage struct {
	*shimclient.Shim
	t      *testing.T
	cfg    shimclient.Config
	home   *shimclient.Home
	bundle *shimclient.Bundle
	ctl    *fakeruntime.Control

	mu     sync.Mutex
	events []order.Event
	// held stops the delivery of events; nil lets them pass.
	held chan struct{}
}

func newStage(t *testing.T) *stage { return usual.stage(t) }

func (b *build) stage(t *testing.T) *stage {
	t.Helper()
	runtime, ctl := fakeruntime.Install(t, fakeruntime.Profile{})
	home, err := shimclient.NewHome("")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, home: home, ctl: ctl}
	sink, err := shimclient.NewSink(home, slog.New(slog.NewTextHandler(io.Discard, nil)), s.take)
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("lark-cmd-%d-%s", os.Getpid(), strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")))
	if s.bundle, err = home.NewBundle(id, &specs.Spec{Version: "1.0.2", Process: &specs.Process{Args: []string{"sleep", "1000"}, Env: []string{"PATH=/bin:/usr/bin"}, Cwd: "/"},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{}}}); err != nil {
		t.Fatal(err)
	}
	s.cfg = shimclient.Config{Binary: b.binary(t), Runtime: runtime, Namespace: "test", Home: home, Sink: sink, Debug: true}
	s.Shim, err = shimclient.Start(t.Context(), s.cfg, s.bundle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.release()
		if err := errors.Join(s.Stop(ctx), sink.Close(), home.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *stage) take(e shimclient.Event) {
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	if held != nil {
		<-held
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e.Task)
}

// hold stops the delivery of events until release.
func (s *stage) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = make(chan struct{})
}

func (s *stage) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		close(s.held)
		s.held = nil
	}
}

func (s *stage) kinds() (kinds []order.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func (s *stage) must(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", what, err, s.bundle.Log())
	}
}

// run creates and starts the container.
func (s *stage) run(change func(*task.CreateTaskRequest)) {
	s.t.Helper()
	r := &task.CreateTaskRequest{ID: s.bundle.ID, Bundle: s.bundle.Path}
	opts, err := s.cfg.Options()
	s.must("options", err)
	r.Options = opts
	if change != nil {
		change(r)
	}
	_, err = s.Create(s.t.Context(), r)
	s.must("create", err)
	_, err = s.Task.Start(s.t.Context(), &task.StartRequest{ID: s.bundle.ID})
	s.must("start", err)
}

func (s *stage) addExec(id string) {
	s.t.Helper()
	spec, err := shimclient.ProcessSpec(&specs.Process{Args: []string{"sleep", "1000"}, Env: []string{"PATH=/bin:/usr/bin"}, Cwd: "/"})
	s.must("spec", err)
	s.must("exec", s.Exec(s.t.Context(), &task.ExecProcessRequest{ID: s.bundle.ID, ExecID: id, Spec: spec}))
	_, err = s.Task.Start(s.t.Context(), &task.StartRequest{ID: s.bundle.ID, ExecID: id})
	s.must("start of an exec", err)
}

// finish ends and deletes the container, so that the shim leaves when it is asked to.
func (s *stage) finish() {
	s.t.Helper()
	s.end("")
	_, err := s.Delete(s.t.Context(), &task.DeleteRequest{ID: s.bundle.ID})
	s.must("delete", err)
}

func (s *stage) end(exec string) {
	s.t.Helper()
	s.must("kill", s.Kill(s.t.Context(), &task.KillRequest{ID: s.bundle.ID, ExecID: exec, Signal: 9}))
	_, err := s.Wait(s.t.Context(), &task.WaitRequest{ID: s.bundle.ID, ExecID: exec})
	s.must("wait", err)
}

// awaitLog waits until the shim's log has the text.
func (s *stage) awaitLog(text string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(s.bundle.Log(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("no %q in the log:\n%s", text, s.bundle.Log())
		}
	}
}

// F23: a shim that is built position-independent, as distributions do, comes to rest
// and goes on.
func TestF23PositionIndependentShimRests(t *testing.T) {
	s := pie.stage(t)
	s.run(nil) // after a Create memory is given back at the next rest
	s.awaitLog("memory was given back")
	s.addExec("x")
	s.end("x")
	s.finish()
}

// CVE-2024-21626: a runtime is given its three standard descriptors, a umask that is
// known, and nothing else of the shim's; in every one of its commands.
func TestRuntimeIsGivenNoOtherDescriptor(t *testing.T) {
	s := newStage(t)
	stdout, err := shimclient.NewOutput(s.bundle, "out")
	s.must("fifo", err)
	defer stdout.File.Close()
	stdin, err := shimclient.NewInput(s.bundle, "in")
	s.must("fifo", err)
	defer stdin.File.Close()
	s.run(func(r *task.CreateTaskRequest) { r.Stdin, r.Stdout = stdin.Path, stdout.Path })
	s.addExec("x")
	s.end("x")
	s.finish()
	seen := map[string]bool{}
	for _, e := range s.ctl.Journal(t) {
		if e.At != "begin" {
			continue
		}
		seen[e.Command] = true
		for fd, what := range e.FDs {
			if fd > 2 {
				t.Errorf("%s was given descriptor %d: %s", e.Command, fd, what)
			}
			if strings.Contains(what, "socket:") || strings.Contains(what, "eventpoll") || strings.Contains(what, "containerd-shim") {
				t.Errorf("%s has %s at %d", e.Command, what, fd)
			}
		}
		if len(e.FDs) != 3 {
			t.Errorf("%s was given %v", e.Command, e.FDs)
		}
		if e.Umask != 0o022 {
			t.Errorf("%s runs with umask %#o", e.Command, e.Umask)
		}
	}
	for _, command := range []string{fakeruntime.Create, fakeruntime.Start, fakeruntime.Exec, fakeruntime.Kill, fakeruntime.Delete} {
		if !seen[command] {
			t.Errorf("%s was not called", command)
		}
	}
}

// What the shim itself writes nobody else can read, and its socket nobody else reach.
func TestWhatTheShimWritesIsPrivate(t *testing.T) {
	s := newStage(t)
	s.run(nil)
	s.end("") // and so there is exit.json
	for _, name := range []string{"options.json", "runtime", "exit.json"} {
		st, err := os.Lstat(filepath.Join(s.bundle.Path, name))
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	socket := s.Answer.Socket()
	st, err := os.Lstat(socket)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", st, err)
	}
	if st, err = os.Lstat(filepath.Dir(socket)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory of the socket: %v, %v", st, err)
	}
	_, err = s.Delete(t.Context(), &task.DeleteRequest{ID: s.bundle.ID})
	s.must("delete", err)
}

// Row 59: signals that only look, or that a terminal sends, change nothing.
func TestRow59SignalsThatDoNothing(t *testing.T) {
	s := newStage(t)
	s.run(nil)
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGTTOU, unix.SIGTTIN, unix.SIGTSTP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCHLD, unix.SIGCONT} {
		if err := unix.Kill(s.Pid, sig); err != nil {
			t.Fatal(err)
		}
		if _, err := s.State(t.Context(), &task.StateRequest{ID: s.bundle.ID}); err != nil {
			t.Fatalf("after %v: %v", sig, err)
		}
	}
	s.awaitLog("END goroutine stacks")
	s.addExec("x")
	s.end("x")
	s.finish()
}

// Row 59: SIGTERM and SIGINT end the shim when all that has happened is told; the socket
// is gone, the container lives until the delete command comes, which knows its end.
func TestRow59OrderlyEndOfTheBinary(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			s := newStage(t)
			s.run(nil)
			s.hold()
			s.addExec("x")
			s.end("x")
			if err := unix.Kill(s.Pid, sig); err != nil {
				t.Fatal(err)
			}
			select {
			case <-s.Gone():
				t.Error("the connection ended before the events were told")
			case <-time.After(200 * time.Millisecond):
			}
			s.release()
			select {
			case <-s.Gone():
			case <-time.After(patience):
				t.Fatal("the shim does not end")
			}
			want := []order.Kind{order.Created, order.Started, order.ExecAdded, order.ExecStarted, order.Exited}
			if got := s.kinds(); !slices.Equal(got, want) {
				t.Errorf("events %v, want %v", got, want)
			}
			if _, err := os.Lstat(s.Answer.Socket()); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
			if pids := s.ctl.Processes(t); len(pids) != 1 {
				t.Errorf("processes %v, want init alone", pids)
			}
			for range 2 {
				d, err := s.RunDelete(t.Context(), s.bundle)
				if err != nil || d.ExitStatus != 137 || d.ExitedAt == nil {
					t.Errorf("delete: %v, %v", d, err)
				}
			}
			if pids := s.ctl.Processes(t); len(pids) != 0 {
				t.Errorf("processes %v are left", pids)
			}
		})
	}
}

// A logging binary, which a client has named, is given its three pipes and nothing of
// the shim's, neither descriptors nor environment.
func TestLoggerIsGivenNoOtherDescriptor(t *testing.T) {
	s := newStage(t)
	dir := t.TempDir()
	script, seen := filepath.Join(dir, "logger"), filepath.Join(dir, "seen")
	// The list is of ls itself, whose own descriptor of the directory is one more.
	text := "#!/bin/sh\n/bin/ls -l /proc/self/fd >" + seen + "\n/usr/bin/env >>" + seen + "\nexec 5>&-\n/bin/cat <&3 >/dev/null\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	s.run(func(r *task.CreateTaskRequest) { r.Stdout, r.Stderr = "binary://"+script, "binary://"+script })
	s.finish()
	data, err := os.ReadFile(seen)
	s.must("what the logger saw", err)
	pipes := 0
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		_, link, isLink := strings.Cut(line, " -> ")
		name, _, isVariable := strings.Cut(line, "=")
		switch {
		case isLink && strings.HasPrefix(link, "pipe:"):
			pipes++
		case isLink && link != "/dev/null" && link != seen && !strings.HasSuffix(link, "/fd"):
			t.Errorf("the logger has %s", line)
		case !isLink && isVariable && !slices.Contains([]string{"CONTAINER_ID", "CONTAINER_NAMESPACE", "PWD", "_", "SHLVL", "OLDPWD"}, name):
			t.Errorf("the logger's environment has %s", line)
		}
	}
	if pipes != 3 {
		t.Errorf("the logger has %d pipes, want 3:\n%s", pipes, data)
	}
}
