package oci

// stdio_test.go: the real runc with the real stdio.

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/stdio"
)

// running makes a container that sleeps.
func running(t testing.TB) *real {
	t.Helper()
	c := newReal(t, "sleep", "1000")
	c.up(t)
	if err := c.Start(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	return c
}

// withIO runs an exec with fifos for its stdio and returns it, its IO, the end to
// write its stdin to and the one to read its stdout from.
func (c *real) withIO(t *testing.T, name string, terminal bool, args ...string) (*children.Child, *stdio.IO, *os.File, *os.File) {
	t.Helper()
	in, out := filepath.Join(c.dir, name+"-in"), filepath.Join(c.dir, name+"-out")
	for _, path := range []string{in, out} {
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	io, err := stdio.New(t.Context(), c.owner, nil, stdio.Spec{Stdin: in, Stdout: out, Terminal: terminal})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { io.Close() })
	data, err := json.Marshal(specs.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", Terminal: terminal})
	if err != nil {
		t.Fatal(err)
	}
	child, err := c.Exec(t.Context(), c.id, ExecCall{PidFile: filepath.Join(c.dir, name+".pid"), Process: data, Namespace: c.space, IO: io})
	if err != nil {
		t.Fatal(err)
	}
	if err := io.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	var ends [2]*os.File
	for i, open := range []struct {
		path  string
		flags int
	}{{in, unix.O_WRONLY}, {out, unix.O_RDONLY}} {
		if ends[i], err = os.OpenFile(open.path, open.flags|unix.O_NONBLOCK, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
		_ = ends[i].SetDeadline(time.Now().Add(time.Minute))
	}
	return child, io, ends[0], ends[1]
}

func TestRuncExecWithStdio(t *testing.T) {
	c := running(t)
	for name, terminal := range map[string]bool{"pipes": false, "terminal": true} {
		child, io, in, out := c.withIO(t, name, terminal, "sh", "-c", "read line; readlink /proc/self/fd/0; echo got $line")
		if err := io.Resize(100, 30); err != nil {
			t.Error(err)
		}
		fmt.Fprintln(in, "hello")
		if exit, err := child.Wait(t.Context()); err != nil || exit.Status != 0 {
			t.Errorf("%s: %+v, %v", name, exit, err)
		}
		if err := io.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		io.Close()
		text := make([]byte, 4096)
		n, _ := out.Read(text)
		got := strings.ReplaceAll(string(text[:n]), "\r", "")
		stdin := "pipe:["
		if terminal {
			stdin = "/dev/pts/"
		}
		if !strings.Contains(got, "got hello\n") || !strings.Contains(got, stdin) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A background child keeps the exec's stdout: the exec's Drain gives up within its
// context, and Close frees everything.
func TestRuncExecLeavesABackgroundChild(t *testing.T) {
	c := running(t)
	child, io, _, _ := c.withIO(t, "bg", false, "sh", "-c", "sleep 1000 &")
	if _, err := child.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := io.Drain(ctx); err == nil {
		t.Error("drained, and somebody holds the pipe")
	}
	if err := io.Close(); err != nil {
		t.Error(err)
	}
}

// A terminal for a container's init: the runtime's errors are still read.
func TestRuncCreateFailsWithTerminal(t *testing.T) {
	c := newReal(t, "no-such-program")
	config := filepath.Join(c.dir, "config.json")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), `"process":{`, `"process":{"terminal":true,`, 1))
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	io, err := stdio.New(t.Context(), c.owner, nil, stdio.Spec{Terminal: true})
	if err != nil {
		t.Fatal(err)
	}
	defer io.Close()
	_, err = c.Create(t.Context(), c.id, CreateCall{PidFile: filepath.Join(c.dir, "init.pid"), Namespace: c.space, IO: io})
	if err == nil || !strings.Contains(err.Error(), `"no-such-program": executable file not found in $PATH`) {
		t.Errorf("%v", err)
	}
}
