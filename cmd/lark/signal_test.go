package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asLark makes this test binary run as lark.
const asLark = "LARK_TEST_AS_LARK"

func TestMain(m *testing.M) {
	if os.Getenv(asLark) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	var err error
	if shimDir, err = os.MkdirTemp("", "lark-shim-"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(shimDir)
	return m.Run()
}

var shimDir string

// shim builds lark's shim, as the tests of its command do.
var shim = sync.OnceValues(func() (string, error) {
	path := filepath.Join(shimDir, "containerd-shim-lark-v2")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, "../containerd-shim-lark-v2").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

// larkRun is `lark run` in a process of its own, with its temporary files in dir.
type larkRun struct {
	*exec.Cmd
	t      *testing.T
	dir    string
	out    io.ReadCloser
	stderr bytes.Buffer
}

// newRun prepares `lark run` with the machine's runc.
func newRun(t *testing.T, args ...string) *larkRun {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs to be root")
	}
	shim, err := shim()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &larkRun{t: t}
	if r.dir, err = os.MkdirTemp("", "larksig"); err != nil { // short: sockets lie in it
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(r.dir) })
	r.Cmd = exec.Command(self, append([]string{"run", "--shim", shim}, args...)...)
	r.Env = append(os.Environ(), asLark+"=1", "TMPDIR="+r.dir)
	r.Stderr = &r.stderr
	return r
}

// start starts it; its output can be read unless it goes elsewhere.
func (r *larkRun) start() {
	r.t.Helper()
	var err error
	if r.Stdout == nil {
		if r.out, err = r.StdoutPipe(); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := r.Start(); err != nil {
		r.t.Fatal(err)
	}
	// Whatever happens: not before it has cleared away.
	r.t.Cleanup(func() {
		if r.ProcessState == nil {
			r.Process.Signal(unix.SIGTERM)
			r.Wait()
		}
	})
}

func startRun(t *testing.T, args ...string) *larkRun {
	t.Helper()
	r := newRun(t, args...)
	r.start()
	return r
}

// up reads the first bytes of output: the container runs.
func (r *larkRun) up() {
	r.t.Helper()
	if _, err := io.ReadFull(r.out, make([]byte, 2)); err != nil {
		r.t.Fatalf("%v\n%s", err, &r.stderr)
	}
}

// ends waits for lark's end and checks that nothing is left of the run.
func (r *larkRun) ends(status int) {
	r.t.Helper()
	err := r.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	if got := r.ProcessState.ExitCode(); got != status {
		r.t.Errorf("lark ended with %v, want %d\n%s", r.ProcessState, status, &r.stderr)
	}
	left, err := filepath.Glob(r.dir + "/lark-*")
	if err != nil || len(left) != 0 {
		r.t.Errorf("%v was left behind, %v", left, err)
	}
	for _, kind := range []string{"cwd", "root"} {
		links, _ := filepath.Glob("/proc/[0-9]*/" + kind)
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, r.dir) {
				r.t.Errorf("%s is %s", link, to)
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(r.dir)) {
		r.t.Errorf("a mount is left below %s", r.dir)
	}
}

const sleeper = "echo up; sleep 1000"

// F27: a signal that would end lark kills the container, and nothing is left.
func TestF27Signals(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGPIPE} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			r := startRun(t, "--", "sh", "-c", sleeper)
			r.up()
			if sig == unix.SIGPIPE {
				// Sent by hand it means nothing; what counts is the write.
				r.Process.Signal(syscall.Signal(sig))
				sig = unix.SIGTERM
			}
			r.Process.Signal(syscall.Signal(sig))
			r.ends(137)
		})
	}
}

// F27: `lark run ... | head -1`: a reader that has enough ends the container, of which
// nothing is left; its order is held.
func TestF27ReaderGoesAway(t *testing.T) {
	r := startRun(t, "--", "sh", "-c", "while :; do echo line; done")
	r.up()
	r.out.Close()
	r.ends(137)
	if !strings.Contains(r.stderr.String(), "order held") {
		t.Errorf("the order was not held, or not checked:\n%s", &r.stderr)
	}
}

// F27: so does a full disk, which is an error.
func TestF27OutputCannotBeWritten(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	r := newRun(t, "-q", "--", "cat", "/dev/zero")
	r.Stdout = full
	r.start()
	r.ends(exitUs)
	if !strings.Contains(r.stderr.String(), "no space left") {
		t.Errorf("the error is not told:\n%s", &r.stderr)
	}
}

// F27: a signal that lark was started to ignore is ignored, as nohup(1) wants it.
func TestF27IgnoredSignal(t *testing.T) {
	r := newRun(t, "--", "sh", "-c", sleeper)
	r.Path, r.Args = "/bin/sh", append([]string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`}, r.Args...)
	r.start()
	r.up()
	r.Process.Signal(unix.SIGHUP)
	r.Process.Signal(unix.SIGTERM) // would be the second: not to wait for anything
	r.ends(137)
}
