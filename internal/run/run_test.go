package run

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/log"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/shimclient/fakeshim"
	"github.com/larkshim/lark/internal/spec"
)

func TestMain(m *testing.M) {
	fakeshim.Main()
	log.SetLevel("fatal") // the ttrpc library logs answers that nobody waits for any more
	os.Exit(m.Run())
}

// capture is a file that a test reads back.
type capture struct{ *os.File }

func newCapture(t *testing.T) capture {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return capture{f}
}

func (c capture) text(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(c.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// quarantine gives the run a directory of its own for temporary files and asserts at
// the end that nothing is left in it and that no process works there.
func quarantine(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "larkrun") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			// containerd's shim hands an exec's spec over in a file, which stays if the
			// shim is killed.
			if !strings.HasSuffix(t.Name(), "/runc") || !strings.HasPrefix(e.Name(), "runc-process") {
				t.Errorf("%s was left behind", e.Name())
			}
		}
		cwds, _ := filepath.Glob("/proc/[0-9]*/cwd")
		for _, c := range cwds {
			if to, err := os.Readlink(c); err == nil && strings.HasPrefix(to, dir) {
				t.Errorf("a process works in %s", to)
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || bytes.Contains(mounts, []byte(dir)) {
			t.Errorf("a mount was left behind below %s", dir)
		}
		os.RemoveAll(dir)
	})
}

func options(t *testing.T, shim string) Options {
	t.Helper()
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	return Options{Shim: shim, Runtime: "true", Args: []string{"true"}, ExecArgs: []string{"true"},
		Stdin: stdin, Stdout: newCapture(t).File, Stderr: newCapture(t).File}
}

func fake(t *testing.T, scenario string) Options {
	t.Helper()
	quarantine(t)
	t.Setenv(fakeshim.Env, scenario)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, self)
	o.Rootfs = t.TempDir()
	return o
}

func TestOrderHeld(t *testing.T) {
	o := fake(t, fakeshim.Proto)
	out, err := Run(t.Context(), Interrupt{}, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Violations) > 0 || out.Status != fakeshim.Status || out.Counts.Events != 4 {
		t.Errorf("got %+v", out)
	}
	table := capture{o.Stderr}.text(t)
	for _, want := range []string{"event", "create", "start", "exit", "delete", "4242", " 7\n"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	if strings.Contains(table, "\x1b") {
		t.Error("colour where there is no terminal")
	}
	var sum bytes.Buffer
	if err := out.Summary(&sum, o, time.Second); err != nil || !strings.HasPrefix(sum.String(), "order held: 1 process ran in 1.00 s, 4 events") {
		t.Errorf("got %q, %v", sum.String(), err)
	}
}

// TestOrderBroken: a shim that tells the exit first is found out, in the table and at
// the end.
func TestOrderBroken(t *testing.T) {
	o := fake(t, fakeshim.WrongOrder)
	out, err := Run(t.Context(), Interrupt{}, o)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(out.Violations, func(v order.Violation) bool { return v.Rule == order.StartAfterExit }) {
		t.Errorf("got %v", out.Violations)
	}
	if table := (capture{o.Stderr}).text(t); !strings.Contains(table, "out of order") {
		t.Errorf("the table says nothing:\n%s", table)
	}
	var sum bytes.Buffer
	if err := out.Summary(&sum, o, time.Second); err != nil || !strings.HasPrefix(sum.String(), "order broken") {
		t.Errorf("got %q, %v", sum.String(), err)
	}
}

func TestShimDies(t *testing.T) {
	o := fake(t, fakeshim.DiesInCreate)
	if out, err := Run(t.Context(), Interrupt{}, o); err == nil {
		t.Errorf("got %+v", out)
	}
}

func TestJSON(t *testing.T) {
	o := fake(t, fakeshim.JSON)
	o.JSON = true
	out, err := Run(t.Context(), Interrupt{}, o)
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	for line := range strings.Lines(capture{o.Stderr}.text(t)) {
		var e jsonEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		events = append(events, e.Event)
	}
	if want := []string{"create", "start", "exit", "delete"}; !slices.Equal(events, want) {
		t.Errorf("got %q", events)
	}
	var sum bytes.Buffer
	var doc struct{ Summary map[string]any }
	if err := out.Summary(&sum, o, time.Second); err != nil || json.Unmarshal(sum.Bytes(), &doc) != nil || doc.Summary["order_held"] != true {
		t.Errorf("got %q, %v", sum.String(), err)
	}
}

func TestUsageErrors(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no runtime":   func(o *Options) { o.Runtime = "no-such-runtime" },
		"no shim":      func(o *Options) { o.Shim = "/no/such/shim" },
		"no rootfs":    func(o *Options) { o.Rootfs = "/no/such/directory" },
		"no bundle":    func(o *Options) { o.Bundle, o.Rootfs = "/no/such/bundle", "" },
		"no command":   func(o *Options) { o.Args = nil },
		"file as root": func(o *Options) { o.Rootfs = "/etc/passwd" },
	} {
		t.Run(name, func(t *testing.T) {
			o := fake(t, fakeshim.JSON)
			change(&o)
			if _, err := Run(t.Context(), Interrupt{}, o); err == nil {
				t.Error("it ran")
			}
		})
	}
}

// realShims are the shims of this machine: lark's own, when it is built, and the
// distribution's. There must be one.
func realShims(t *testing.T) map[string]string {
	t.Helper()
	shims := map[string]string{}
	for name, path := range map[string]string{"lark": "../../bin/" + ownShim, "runc": "containerd-shim-runc-v2"} {
		if p, err := absolute(path); err == nil {
			shims[name] = p
		}
	}
	if len(shims) == 0 {
		t.Fatal("there is neither lark's own shim in bin (make builds it) nor containerd's in PATH")
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test needs to be root")
	}
	return shims
}

// cleared fails the test for a cgroup that the container has left in any hierarchy.
func cleared(t *testing.T, id string) {
	t.Helper()
	if id == "" {
		t.Fatal("the container's ID is not known")
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		if left, err := filepath.Glob(pattern + id); err != nil || len(left) > 0 {
			t.Errorf("cgroups %q were left behind, %v", left, err)
		}
	}
}

// judge fails the test for a broken order. Of containerd's own shim, deleting a
// container as soon as Wait has answered may tell the delete before the exit (W11).
func judge(t *testing.T, name string, vs []order.Violation) {
	t.Helper()
	for _, v := range vs {
		if name != "lark" && (v.Rule == order.DeleteBeforeExit || v.Rule == order.AfterDelete) {
			t.Logf("%s: %v", name, v)
			continue
		}
		t.Errorf("%s: %v", name, v)
	}
}

// real runs the test once under each real shim, with the machine's runc and busybox.
func real(t *testing.T, test func(t *testing.T, name string, o Options)) {
	t.Helper()
	for name, path := range realShims(t) {
		t.Run(name, func(t *testing.T) {
			quarantine(t)
			o := options(t, path)
			o.Runtime = "runc"
			test(t, name, o)
		})
	}
}

func TestRealOutputAndStatus(t *testing.T) {
	real(t, func(t *testing.T, name string, o Options) {
		o.Quiet = true
		o.Args = []string{"sh", "-c", "echo out; echo err >&2; exit 3"}
		out, err := Run(t.Context(), Interrupt{}, o)
		if err != nil {
			t.Fatal(err)
		}
		judge(t, name, out.Violations)
		if got := (capture{o.Stdout}).text(t); got != "out\n" {
			t.Errorf("stdout: %q", got)
		}
		if got := (capture{o.Stderr}).text(t); got != "err\n" {
			t.Errorf("stderr: %q", got)
		}
		if out.Status != 3 {
			t.Errorf("status %d", out.Status)
		}
	})
}

func TestRealInput(t *testing.T) {
	real(t, func(t *testing.T, name string, o Options) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		go func() {
			io.WriteString(w, "one\ntwo\n")
			w.Close()
		}()
		o.Stdin, o.Interactive, o.Args = r, true, []string{"cat"}
		out, err := Run(t.Context(), Interrupt{}, o)
		if err != nil {
			t.Fatal(err)
		}
		judge(t, name, out.Violations)
		if got := (capture{o.Stdout}).text(t); got != "one\ntwo\n" {
			t.Errorf("stdout: %q", got)
		}
	})
}

func TestRealExecs(t *testing.T) {
	real(t, func(t *testing.T, name string, o Options) {
		o.Args, o.Execs = nil, 8
		out, err := Run(t.Context(), Interrupt{}, o)
		if err != nil {
			t.Fatal(err)
		}
		judge(t, name, out.Violations)
		cleared(t, out.ID)
		if out.Counts.Execs != 8 || out.FailedExecs != 0 || !out.Ended {
			t.Errorf("got %+v", out)
		}
	})
}

// TestRealInterrupt: the container is killed as soon as it runs, and everything else
// ends in order.
func TestRealInterrupt(t *testing.T) {
	real(t, func(t *testing.T, name string, o Options) {
		kill := make(chan struct{})
		close(kill)
		o.Args = []string{"sleep", "1000"}
		out, err := Run(t.Context(), Interrupt{Kill: kill}, o)
		if err != nil {
			t.Fatal(err)
		}
		judge(t, name, out.Violations)
		cleared(t, out.ID)
		if !out.Interrupted || out.Status != 137 {
			t.Errorf("got %+v", out)
		}
	})
}

// TestRealAbort: with the context gone in the middle of many execs, nothing is waited
// for and nothing is left.
func TestRealAbort(t *testing.T) {
	real(t, func(t *testing.T, _ string, o Options) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		o.Stdout = w
		o.Args, o.Execs = []string{"sh", "-c", "echo up; sleep 1000"}, 30
		var id string
		up := make(chan struct{})
		go func() {
			defer close(up)
			defer cancel()
			r.Read(make([]byte, 1)) // the container is up, its execs are starting
			if homes, err := filepath.Glob(filepath.Join(os.TempDir(), "lark-*")); err == nil && len(homes) == 1 {
				id = filepath.Base(homes[0])
			}
		}()
		if _, err := Run(ctx, Interrupt{}, o); !errors.Is(err, ErrAborted) {
			t.Errorf("got %v", err)
		}
		w.Close()
		<-up
		cleared(t, id)
	})
}

func TestRealMissingCommand(t *testing.T) {
	real(t, func(t *testing.T, _ string, o Options) {
		o.Args = []string{"no-such-command"}
		_, err := Run(t.Context(), Interrupt{}, o)
		if err == nil || !strings.Contains(err.Error(), "no-such-command") {
			t.Errorf("got %v", err)
		}
	})
}

// TestRealBundle: a bundle that `runc spec` made runs and is not written to.
func TestRealBundle(t *testing.T) {
	real(t, func(t *testing.T, name string, o Options) {
		bundle := t.TempDir()
		if out, err := exec.Command("runc", "spec", "--bundle", bundle).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := spec.Busybox(t.Context(), filepath.Join(bundle, "rootfs")); err != nil {
			t.Fatal(err)
		}
		o.Bundle, o.Args = bundle, []string{"echo", "hello"}
		out, err := Run(t.Context(), Interrupt{}, o)
		if err != nil {
			t.Fatal(err)
		}
		judge(t, name, out.Violations)
		if got := (capture{o.Stdout}).text(t); got != "hello\n" {
			t.Errorf("stdout: %q", got)
		}
		if entries, err := os.ReadDir(bundle); err != nil || len(entries) != 2 {
			t.Errorf("the bundle was written to: %v, %v", entries, err)
		}
	})
}
