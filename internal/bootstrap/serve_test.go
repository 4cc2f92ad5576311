package bootstrap

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/taskapi"
)

// serving starts a shim in the socket directory of the daemon's own.
func (c *container) serving() *running {
	c.t.Helper()
	a := parse(c.t, c.start(c.params()))
	return connect(c.t, strings.TrimPrefix(a.Address, "unix://"))
}

// SIGTERM and SIGINT end the shim in order, calls that wait for containers included.
func TestRow59OrderlyEnd(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			d := newDaemon(t)
			shim := d.container("c1").serving()
			waited := make(chan error, 1)
			go func() {
				waited <- shim.Call(t.Context(), taskapi.V3, "Wait", &task.WaitRequest{ID: "c1"}, &task.WaitResponse{})
			}()
			if !shim.alive() { // and so the Wait, which came first on this connection, has been taken
				t.Fatal("not serving")
			}
			shim.signal(sig)
			shim.ended()
			if err := <-waited; err == nil {
				t.Error("Wait has no error")
			}
			if _, err := os.Lstat(shim.path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
			if d.got() != "/tasks/closed" {
				t.Errorf("events %q", d.got())
			}
		})
	}
}

func TestRow59HarmlessSignals(t *testing.T) { // row 59
	d := newDaemon(t)
	c := d.container("c1")
	log := c.openReader()
	defer log.Close()
	shim := c.serving()
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGTTOU, unix.SIGTTIN, unix.SIGTSTP, unix.SIGUSR2} {
		shim.signal(sig)
	}
	shim.signal(unix.SIGUSR1)
	dump := readUntil(t, log, "=== END goroutine stacks ===")
	if !strings.Contains(dump, "bootstrap.(*process).run") {
		t.Errorf("stacks:\n%s", dump)
	}
	if !shim.alive() {
		t.Error("the shim does not answer")
	}
	shim.shutdown()
}

// containerd goes away and comes back: the shim's log goes on, and neither the lack of
// a reader nor a full pipe ends or blocks the shim.
func TestLogSurvivesARestartOfContainerd(t *testing.T) {
	d := newDaemon(t)
	c := d.container("c1")
	first := c.openReader()
	shim := c.serving()
	shim.signal(unix.SIGUSR1)
	readUntil(t, first, "=== END")
	first.Close()
	for range 20 { // more than the pipe holds
		shim.signal(unix.SIGUSR1)
		if !shim.alive() {
			t.Fatal("the shim does not answer")
		}
	}
	second := c.openReader()
	defer second.Close()
	readUntil(t, second, "=== BEGIN") // what the pipe had kept
	shim.signal(unix.SIGTERM)
	readUntil(t, second, "ending")
	shim.ended()
}

func TestLogPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLog(path)
	defer unix.Close(l.fd)
	record := bytes.Repeat([]byte("x"), 1000)
	for range 100 { // 100 KB into 64 KiB
		if n, err := l.Write(record); n != len(record) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 128<<10)
	n, err := f.Read(buf) // all that the pipe holds
	if err != nil {
		t.Fatal(err)
	}
	got := buf[:n]
	lost := l.lost
	if lost == 0 || len(got)+1000*lost != 100_000 {
		t.Errorf("%d bytes read, %d records lost", len(got), lost)
	}
	if _, err := l.Write([]byte("after\n")); err != nil {
		t.Fatal(err)
	}
	if text := readUntil(t, f, "after"); !strings.Contains(text, "records were lost") {
		t.Errorf("log %q", text)
	}
}

func TestLogThatIsNoPipe(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir, filepath.Join(dir, "missing")} {
		l := openLog(path)
		if l.fd >= 0 {
			t.Errorf("%s was taken", path)
		}
		if n, err := l.Write([]byte("x")); n != 1 || err != nil {
			t.Errorf("Write: %d, %v", n, err)
		}
		l.dumpStacks()
		if err := l.takeStderr(); err != nil {
			t.Error(err)
		}
	}
	if data, _ := os.ReadFile(file); len(data) > 0 {
		t.Error("something was written into a file")
	}
}

// A service that cannot be made ends the process, which leaves no socket and says why
// in the log.
func TestServiceThatCannotBeMade(t *testing.T) {
	d := newDaemon(t)
	d.env = []string{"LARK_TEST_BROKEN=1"}
	c := d.container("c1")
	log := c.openReader()
	defer log.Close()
	a := parse(t, c.start(c.params()))
	readUntil(t, log, "the service cannot be made")
	path := strings.TrimPrefix(a.Address, "unix://")
	if !await(func() bool { _, err := os.Lstat(path); return err != nil }, time.Minute) {
		t.Error("the socket is left")
	}
}

// Somebody types the command's name: it says what it is, and does nothing.
func TestCommandLine(t *testing.T) {
	d := newDaemon(t)
	c := d.container("c1")
	for name, x := range map[string]struct {
		args []string
		want string
		ok   bool
	}{
		"version":         {[]string{"-v"}, "Revision: r1", true},
		"long version":    {[]string{"--version"}, "Version:  v1", true},
		"no socket":       {nil, "for containerd", false},
		"unknown command": {[]string{"stop"}, `"stop"`, false},
		"two commands":    {[]string{"start", "delete"}, "more than one", false},
		"unknown flag":    {[]string{"-x"}, "-x", false},
		"help":            {[]string{"-h"}, "-namespace", true},
		"bad id":          {[]string{"-id", "../x", "start"}, "identifier", false},
		"no namespace":    {[]string{"-namespace", "", "start"}, "namespace is empty", false},
	} {
		out, err := c.run(nil, x.args...)
		if (err == nil) != x.ok || !strings.Contains(out, x.want) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	if n := shims(t, d.grpc); n != 0 {
		t.Errorf("%d shims were started", n)
	}
}

func TestEventAddress(t *testing.T) {
	t.Setenv("TTRPC_ADDRESS", "/x")
	if got := eventAddress("/c.sock"); got != "/x" {
		t.Error(got)
	}
	t.Setenv("TTRPC_ADDRESS", "")
	if got := eventAddress("/c.sock"); got != "/c.sock.ttrpc" {
		t.Error(got)
	}
}
