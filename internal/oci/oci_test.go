package oci

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
)

func TestCreateClaimsTheProcess(t *testing.T) {
	b := newBench(t, "ok", Deadlines{})
	child, err := b.create(t)
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exit, err := child.Wait(t.Context())
	if err != nil || exit.Status != 137 {
		t.Errorf("exit %+v, %v", exit, err)
	}
}

func TestExecLeavesNoFile(t *testing.T) {
	b := newBench(t, "ok", Deadlines{})
	if err := os.WriteFile(filepath.Join(b.dir, "e.pid"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	child, err := b.Exec(t.Context(), "x", ExecCall{PidFile: filepath.Join(b.dir, "e.pid"), Process: []byte("{}"), Namespace: b.owner.OwnNamespace()})
	if err != nil {
		t.Fatal(err)
	}
	_ = child.Signal(unix.SIGKILL)
	if _, err := child.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(b.dir)
	if err != nil || len(left) != 1 { // the runtime's directory
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Row 31: a runtime that says it went well and names no process, or one that it
// may not name, fails the call, and nobody is signalled.
func TestRow31BadPidFile(t *testing.T) {
	for _, mode := range []string{"pid:", "pid:abc", "pid:-1", "pid:0", "pid:1", "pid:+7", "pid:4194305", "pid: 7", "self"} {
		t.Run(mode, func(t *testing.T) {
			b := newBench(t, mode, Deadlines{})
			child, err := b.create(t)
			if child != nil || !errdefs.IsInternal(err) {
				t.Errorf("%v, %v", child, err)
			}
		})
	}
}

func TestRow31NoPidFile(t *testing.T) {
	b := newBench(t, "stdout:", Deadlines{})
	if err := os.WriteFile(b.pidFile(), []byte("2"), 0o600); err != nil {
		t.Fatal(err) // a stale one must not be believed
	}
	if _, err := b.create(t); !errdefs.IsInternal(err) {
		t.Errorf("%v", err)
	}
}

func TestParsePidRefusesOurselves(t *testing.T) {
	if _, err := parsePid([]byte("12\n")); err != nil {
		t.Error(err)
	}
	if _, err := parsePid([]byte(strconv.Itoa(os.Getpid()))); !errdefs.IsInternal(err) {
		t.Errorf("own pid: %v", err)
	}
}

func FuzzPidFile(f *testing.F) {
	for _, s := range []string{"", "-1", "0", "1", "2", "12\n", "012", "+5", "4194304", "4194305", "99999999999999999999", "1 2", "\n", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		pid, err := parsePid(data)
		if err == nil && (pid < 2 || pid > maxPid || pid == os.Getpid() || strconv.Itoa(pid) != strings.TrimSuffix(string(data), "\n")) {
			t.Errorf("%q taken as %d", data, pid)
		}
		if err != nil && (pid != 0 || !errdefs.IsInternal(err)) {
			t.Errorf("%q: %d, %v", data, pid, err)
		}
	})
}

// Row 32: a call that hangs is ended at its deadline with all that it forked,
// and the caller is told so.
func TestRow32Hang(t *testing.T) {
	b := newBench(t, "hang", short(hang))
	calls := map[string]func() error{
		"create": func() error { _, err := b.create(t); return err },
		"kill":   func() error { return b.Kill(t.Context(), "x", unix.SIGTERM, false) },
		"ps":     func() error { _, err := b.Pids(t.Context(), "x"); return err },
	}
	for name, call := range calls {
		began := time.Now()
		err := call()
		if !errdefs.IsDeadlineExceeded(err) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("%s took %v", name, took)
		}
		gone(t, filepath.Join(b.dir, "hung"))
	}
}

// W17: a context does not end a call that makes or removes something; of the
// others it is the bound.
func TestRow52W17CallOutlivesItsClient(t *testing.T) {
	b := newBench(t, "ok", Deadlines{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	child, err := b.Create(ctx, "x", CreateCall{PidFile: b.pidFile(), Namespace: b.owner.OwnNamespace()})
	if err != nil {
		t.Fatal(err)
	}
	_ = child.Signal(unix.SIGKILL)
	_, _ = child.Wait(t.Context())

	for name, call := range map[string]func(*bench, context.Context) error{
		"checkpoint": func(b *bench, ctx context.Context) error { return b.Checkpoint(ctx, "x", CheckpointCall{}) },
		"pause":      func(b *bench, ctx context.Context) error { return b.Pause(ctx, "x") },
		"resume":     func(b *bench, ctx context.Context) error { return b.Resume(ctx, "x") },
		"kill":       func(b *bench, ctx context.Context) error { return b.Kill(ctx, "x", unix.SIGKILL, true) },
		"update":     func(b *bench, ctx context.Context) error { return b.Update(ctx, "x", &specs.LinuxResources{}) },
	} {
		b = newBench(t, "hang", Deadlines{})
		ctx, cancel = context.WithTimeout(t.Context(), hang)
		if err := call(b, ctx); !errdefs.IsDeadlineExceeded(err) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		gone(t, filepath.Join(b.dir, "hung"))
	}
}

// Row 33: the runtime dies by a signal between the fork and the pid file.
func TestRow33Crash(t *testing.T) {
	b := newBench(t, "crash", Deadlines{})
	space := children.NewNamespace()
	_, err := b.Create(t.Context(), "x", CreateCall{PidFile: b.pidFile(), Namespace: space})
	if !errdefs.IsInternal(err) || !strings.Contains(err.Error(), "signal 9") {
		t.Errorf("%v", err)
	}
	gone(t, filepath.Join(b.dir, "crashed"))
}

// F14: a call that fails after the fork leaves nothing in the host's pid
// namespace either, whether it exits, dies or is killed at its deadline.
func TestF14NamedByAFailedCall(t *testing.T) {
	for _, mode := range []string{"failafter", "dieafter", "hangafter"} {
		t.Run(mode, func(t *testing.T) {
			deadlines := DefaultDeadlines()
			if mode == "hangafter" {
				deadlines = short(time.Second)
			}
			b := newBench(t, mode, deadlines)
			if _, err := b.create(t); err == nil {
				t.Error("it went well")
			}
			if mode != "hangafter" { // which may not get to fork on a slow machine
				gone(t, filepath.Join(b.dir, "forked"))
				return
			}
			if _, err := os.Stat(filepath.Join(b.dir, "forked")); err == nil {
				gone(t, filepath.Join(b.dir, "forked"))
			}
		})
	}
}

// Row 31, W9: the runtime has made a process and does not say which. It is found
// and killed.
func TestRow31ProcessWithoutPid(t *testing.T) {
	b := newBench(t, "forkbadpid", Deadlines{})
	_, err := b.Create(t.Context(), "x", CreateCall{PidFile: b.pidFile(), Namespace: children.NewNamespace()})
	if !errdefs.IsInternal(err) {
		t.Errorf("%v", err)
	}
	gone(t, filepath.Join(b.dir, "forked"))
}

func TestRow30Messages(t *testing.T) {
	for mode, want := range map[string]string{
		"log:it is broken":    "OCI runtime create failed: it is broken",
		"stderr:plain\nwords": "OCI runtime create failed: words",
		"silent":              "exit status 3",
		"flood":               "OCI runtime create failed: the end",
	} {
		b := newBench(t, mode, Deadlines{})
		_, err := b.create(t)
		if !errdefs.IsUnknown(err) || !strings.Contains(err.Error(), want) || len(err.Error()) > 2*messageMax {
			t.Errorf("%s: %.200v", mode, err)
		}
	}
}

// Two calls of one container fail at once: each gets its own words.
func TestErrorsAreNotMixed(t *testing.T) {
	log := []string{"mine", "the other's"}
	if got := reason(log, []byte("mine\n")); got != "mine" {
		t.Errorf("got %q", got)
	}
	if got := reason(log, nil); got != "the other's" {
		t.Errorf("got %q", got)
	}
	if got := reason(nil, []byte("a\nb\x1b[2J\n\n")); got != "b [2J" {
		t.Errorf("got %q", got)
	}
}

// Row 34: nonsense where JSON is expected, and too much of it.
func TestRow34Nonsense(t *testing.T) {
	for _, mode := range []string{"stdout:hello", "stdout:", "stdout:{\"pid\":\"x\"}", "endless"} {
		b := newBench(t, mode, Deadlines{})
		if _, err := b.State(t.Context(), "x"); !errdefs.IsInternal(err) {
			t.Errorf("state, %s: %v", mode, err)
		}
		if _, err := b.Pids(t.Context(), "x"); !errdefs.IsInternal(err) {
			t.Errorf("ps, %s: %v", mode, err)
		}
		if _, err := b.Features(t.Context()); mode != "stdout:{\"pid\":\"x\"}" && !errdefs.IsInternal(err) {
			t.Errorf("features, %s: %v", mode, err)
		}
	}
}

// Row 36: a grandchild that holds stderr holds nothing else.
func TestRow36GrandchildHoldsStderr(t *testing.T) {
	b := newBench(t, "holder", Deadlines{})
	began := time.Now()
	err := b.Start(t.Context(), "x")
	if err == nil || !strings.HasSuffix(err.Error(), "held") {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %v", took)
	}
	data, err := os.ReadFile(filepath.Join(b.dir, "held"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := parsePid(data)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Kill(pid, unix.SIGKILL)
}

// Row 37: whether the container is gone is asked, not read.
func TestRow37GoneIsAsked(t *testing.T) {
	b := newBench(t, "probe:no", Deadlines{})
	for name, call := range map[string]func() error{
		"delete": func() error { return b.Delete(t.Context(), "x", false) },
		"kill":   func() error { return b.Kill(t.Context(), "x", unix.SIGKILL, true) },
		"pause":  func() error { return b.Pause(t.Context(), "x") },
		"resume": func() error { return b.Resume(t.Context(), "x") },
		"update": func() error { return b.Update(t.Context(), "x", &specs.LinuxResources{}) },
		"ps":     func() error { _, err := b.Pids(t.Context(), "x"); return err },
		"state":  func() error { _, err := b.State(t.Context(), "x"); return err },
	} {
		ends := name == "kill" || name == "delete" || name == "state"
		if err := call(); errdefs.IsNotFound(err) != ends || errdefs.IsFailedPrecondition(err) == ends {
			t.Errorf("%s: %v", name, err)
		}
	}
	// state fails, but the container's directory is there: not gone.
	if err := os.MkdirAll(filepath.Join(b.dir, "root", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "x", true); err == nil || errdefs.IsNotFound(err) {
		t.Errorf("delete of a damaged container: %v", err)
	}
	b = newBench(t, "probe:stopped", Deadlines{})
	if err := b.Kill(t.Context(), "x", unix.SIGKILL, false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("kill of a stopped container: %v", err)
	}
	if err := b.Pause(t.Context(), "x"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pause of a stopped container: %v", err)
	}
	b = newBench(t, "probe:running", Deadlines{})
	if err := b.Delete(t.Context(), "x", false); !errdefs.IsUnknown(err) {
		t.Errorf("delete of a running container: %v", err)
	}
	b = newBench(t, "probe:hang", short(hang))
	if err := b.Delete(t.Context(), "x", false); !errdefs.IsUnknown(err) {
		t.Errorf("delete, and state hangs: %v", err)
	}
}

// Of a variable that stands in the environment twice the last counts, whichever the runtime's C library would take.
func TestEnvironmentIsUnambiguous(t *testing.T) {
	got := environment([]string{"A=1", "PATH=/first", "B=2", "A=3", "PATH=/second", "NOTIFY_SOCKET=x"})
	if want := []string{"B=2", "A=3", "PATH=/second"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The command line is what wrappers expect; nothing of ours leaks.
func TestWhatTheRuntimeIsGiven(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/notify")
	t.Setenv("LISTEN_FDS", "3")
	b := newBench(t, "describe", Deadlines{})
	child, err := b.Create(t.Context(), "x", CreateCall{PidFile: b.pidFile(), Namespace: b.owner.OwnNamespace(), NoPivot: true, NoNewKeyring: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = child.Signal(unix.SIGKILL)
	_, _ = child.Wait(t.Context())
	text, err := os.ReadFile(filepath.Join(b.dir, "description"))
	if err != nil {
		t.Fatal(err)
	}
	wantArgs := "args --root " + b.dir + "/root --log " + b.dir + "/log.json --log-format json create --bundle " + b.dir +
		" --pid-file " + b.pidFile() + " --no-pivot --no-new-keyring x\n"
	for _, want := range []string{wantArgs, "cwd " + b.dir + "\n", "fd 0 /dev/null\n", "pgid true\n"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	for line := range strings.Lines(string(text)) {
		fd, isFd := strings.CutPrefix(line, "fd ")
		if isFd && !strings.HasPrefix(fd, "0 ") && !strings.HasPrefix(fd, "1 ") && !strings.HasPrefix(fd, "2 ") {
			t.Errorf("leaked: %s", line)
		}
		if strings.HasPrefix(line, "env NOTIFY_SOCKET") || strings.HasPrefix(line, "env LISTEN_FDS") {
			t.Errorf("passed on: %s", line)
		}
	}
}

func TestRow29NoSuchBinary(t *testing.T) {
	owner, err := children.NewOwner(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		is         func(error) bool
	}{
		{"no-runc", `"no-runc": executable file not found in $PATH`, errdefs.IsFailedPrecondition},
		{dir + "/none", `none"`, errdefs.IsFailedPrecondition},
		{plain, plain, errdefs.IsFailedPrecondition},
		{dir, dir, errdefs.IsFailedPrecondition},
		{"bin/runc", `"bin/runc"`, errdefs.IsInvalidArgument},
	} {
		_, err := New(Config{Binary: c.name, Dir: dir, Owner: owner})
		if !c.is(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := os.Chmod(plain, 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{Binary: plain, Dir: dir, Owner: owner})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context(), "x"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a file of no known format: %v", err)
	}
}

func TestDeadlinesFromEnv(t *testing.T) {
	d, err := DeadlinesFromEnv(func(name string) string {
		return map[string]string{"LARK_TIMEOUT_CREATE": "7s", "LARK_TIMEOUT_KILL": "0"}[name]
	})
	if err != nil || d.Create != 7*time.Second || d.Kill != 0 || d.Exec != 2*time.Minute {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{"7", "-1s", "soon"} {
		if _, err := DeadlinesFromEnv(func(string) string { return bad }); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestErrorShowsClassAndCause(t *testing.T) {
	err := systemError(opCreate, "x", unix.EMFILE)
	if !errdefs.IsResourceExhausted(err) || !errors.Is(err, unix.EMFILE) {
		t.Errorf("%v", err)
	}
}
