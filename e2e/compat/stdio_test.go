package compat

// Scenarios: where a process's output goes.

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/shimclient"
)

var stdioScenarios = []scenario{
	{name: "fifos", play: fifos},
	{name: "files", play: files},
	{name: "loggers", play: loggers},
	{name: "terminals", play: terminals},
	{name: "streams that cannot be", play: badStreams},
}

// stream is the client's end of a FIFO.
type stream struct {
	*shimclient.FIFO
	a *act
}

func (b *box) output(name string) stream {
	b.Helper()
	f, err := shimclient.NewOutput(b.bundle, name)
	return b.stream(f, err)
}

func (b *box) input(name string) stream {
	b.Helper()
	f, err := shimclient.NewInput(b.bundle, name)
	return b.stream(f, err)
}

func (b *box) stream(f *shimclient.FIFO, err error) stream {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(f.Close)
	return stream{f, b.act}
}

func (s stream) path() string { return s.Path }
func (s stream) attached()    { s.Attached() }

// all is what comes until the end.
func (s stream) all() string {
	s.a.Helper()
	_ = s.File.SetReadDeadline(time.Now().Add(patience))
	data, err := io.ReadAll(s.File)
	if err != nil {
		s.a.Fatal(err)
	}
	return string(data)
}

// until is what comes up to a text.
func (s stream) until(text string) string {
	s.a.Helper()
	_ = s.File.SetReadDeadline(time.Now().Add(patience))
	var got strings.Builder
	buf := make([]byte, 512)
	for !strings.Contains(got.String(), text) {
		n, err := s.File.Read(buf)
		if err != nil {
			s.a.Fatalf("%q, then %v", got.String(), err)
		}
		got.Write(buf[:n])
	}
	return got.String()
}

func (s stream) say(text string) {
	s.a.Helper()
	if _, err := s.File.WriteString(text); err != nil {
		s.a.Fatal(err)
	}
}

func fifos(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sh", "-c", "cat; echo the end >&2")
	in, out, err := b.input("in"), b.output("out"), b.output("err")
	b.create.Stdin, b.create.Stdout, b.create.Stderr = in.path(), out.path(), err.path()
	b.up()
	out.attached()
	err.attached()
	b.state("state", "")
	in.say("hello\n")
	b.note("echo", "%q", out.until("\n"))
	in.Close()
	b.ok("closeio", b.shim.CloseIO(b.Context(), &taskapi.CloseIORequest{ID: b.id, Stdin: true}))
	b.wait("wait", "")
	b.note("stdout", "%q", out.all())
	b.note("stderr", "%q", err.all())
	b.ok("closeio again", b.shim.CloseIO(b.Context(), &taskapi.CloseIORequest{ID: b.id, Stdin: true}))
	b.delete("delete", "")

	c := a.container("c2", nil, "sleep", "1000")
	c.up()
	eo := c.output("eo")
	_ = c.execWith("exec with stdout alone", &taskapi.ExecProcessRequest{ExecID: "e1", Stdout: eo.path(), Stderr: ""}, "sh", "-c", "echo one; echo two >&2")
	if c.doStart("start exec with stdout alone", "e1") == nil {
		eo.attached()
		c.wait("wait exec", "e1")
		c.note("its stdout", "%q", eo.all())
	}
	both := c.output("both")
	_ = c.execWith("exec with one fifo for both", &taskapi.ExecProcessRequest{ExecID: "e2", Stdout: both.path(), Stderr: both.path()}, "sh", "-c", "echo one; echo two >&2")
	c.doStart("start exec with one fifo for both", "e2")
	both.attached()
	c.wait("wait exec with one fifo", "e2")
	c.note("in it", "%q", sortedLines(both.all()))
	c.end()
}

func files(a *act, _ *fakeruntime.Control) {
	path := filepath.Join(a.cfg.Home.Dir, "new", "directory", "log")
	b := a.container("c1", nil, "sh", "-c", "echo one; echo two >&2")
	b.create.Stdout, b.create.Stderr = "file://"+path, "file://"+path
	b.up()
	b.wait("wait", "")
	b.state("state", "")
	b.delete("delete", "")
	b.file("a file", path)
	b.file("its directory", filepath.Dir(path))

	c := a.container("c2", nil, "sh", "-c", "echo one; echo two >&2")
	plain := filepath.Join(a.cfg.Home.Dir, "plain")
	if err := os.WriteFile(plain, []byte("before\n"), 0o600); err != nil {
		a.Fatal(err)
	}
	c.create.Stdout, c.create.Stderr = plain, plain
	c.up()
	c.wait("wait c2", "")
	c.delete("delete c2", "")
	c.file("a plain file", plain)

	d := a.container("c3", nil, "true")
	d.create.Stdout = filepath.Join(a.cfg.Home.Dir, "not-there")
	d.create.Stderr = d.create.Stdout
	d.doCreate("create with a plain path that is not there")
	d.state("state of c3", "")

	link := filepath.Join(a.cfg.Home.Dir, "link")
	if err := os.Symlink(plain, link); err != nil {
		a.Fatal(err)
	}
	for i, target := range []string{"file://" + link, link, "file:///dev/null", "/dev/null", "file:///dev/full"} {
		e := a.container("c4"+string(rune('a'+i)), nil, "sh", "-c", "echo one && echo two >&2")
		e.create.Stdout, e.create.Stderr = target, target
		e.up()
		e.wait("wait "+e.id, "")
		e.delete("delete "+e.id, "")
	}
	c.file("a plain file, by links too", plain)
}

// file notes a file's mode and what is in it, lines sorted: two streams have no order.
func (b *box) file(name, path string) {
	b.Helper()
	info, err := os.Stat(path)
	if err != nil {
		b.note(name, "%v", errors.Is(err, os.ErrNotExist))
		return
	}
	data, _ := os.ReadFile(path)
	b.note(name, "%v %v", info.Mode(), sortedLines(string(data)))
}

// aLogger is a logging binary: it says how it was called, is ready, and writes what it
// is told.
const aLogger = `#!/bin/sh
trap '' TERM
exec >"$2"
echo "arguments: $*"
tr '\0' '\n' </proc/$$/environ | grep -v '^PWD=' | sed 's/^/environment: /'
READY
exec 5>&-
cat <&3
cat <&4
echo the end
`

func (a *act) logger(name, ready string) string {
	a.Helper()
	path := filepath.Join(a.cfg.Home.Dir, name)
	if err := os.WriteFile(path, []byte(strings.Replace(aLogger, "READY", ready, 1)), 0o700); err != nil {
		a.Fatal(err)
	}
	return path
}

func loggers(a *act, _ *fakeruntime.Control) {
	for i, l := range []struct{ scheme, ready string }{ // containers a, b, not-ready
		{"binary", ""}, {"binary-v2", "echo >&5"}, {"binary-v2", ""},
	} {
		id := []string{"a", "b", "not-ready"}[i]
		log := filepath.Join(a.cfg.Home.Dir, "log-"+id)
		b := a.container(id, nil, "sh", "-c", "echo one; echo two >&2")
		b.create.Stdout = l.scheme + "://" + a.logger("logger-"+id, l.ready) + "?file=" + log
		b.create.Stderr = b.create.Stdout
		if b.doCreate("create "+id) != nil {
			continue
		}
		b.doStart("start "+id, "")
		b.wait("wait "+id, "")
		b.delete("delete "+id, "")
		data, err := os.ReadFile(log)
		b.note("log "+id, "%v %v", sortedLines(string(data)), err)
	}
	c := a.container("c", nil, "sleep", "1000")
	c.up()
	log := filepath.Join(a.cfg.Home.Dir, "log-exec")
	uri := "binary://" + a.logger("logger-exec", "") + "?file=" + log
	_ = c.execWith("exec", &taskapi.ExecProcessRequest{ExecID: "e1", Stdout: uri, Stderr: uri}, "sh", "-c", "echo one; echo two >&2")
	c.doStart("start exec", "e1")
	c.wait("wait exec", "e1")
	c.delete("delete exec", "e1")
	data, err := os.ReadFile(log)
	c.note("log of exec", "%v %v", sortedLines(string(data)), err)
	c.end()
}

func terminals(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", func(s *specs.Spec) { s.Process.Terminal = true }, "sh", "-c", "read x; stty size; echo got $x; exit 3")
	in, out := b.input("in"), b.output("out")
	b.create.Stdin, b.create.Stdout, b.create.Terminal = in.path(), out.path(), true
	b.up()
	out.attached()
	b.state("state", "")
	b.ok("resize", b.shim.ResizePty(b.Context(), &taskapi.ResizePtyRequest{ID: b.id, Width: 123, Height: 45}))
	in.say("a line\n")
	b.wait("wait", "")
	b.note("output", "%q", out.all())
	b.ok("resize when stopped", b.shim.ResizePty(b.Context(), &taskapi.ResizePtyRequest{ID: b.id, Width: 123, Height: 45}))
	b.delete("delete", "")

	c := a.container("c2", nil, "sleep", "1000")
	c.up()
	eo := c.output("eo")
	_ = c.execWith("exec", &taskapi.ExecProcessRequest{ExecID: "e1", Stdout: eo.path(), Terminal: true}, "sh", "-c", "tty; echo hello")
	c.doStart("start exec", "e1")
	eo.attached()
	c.wait("wait exec", "e1")
	c.note("output of exec", "%q", eo.all())
	log := filepath.Join(a.cfg.Home.Dir, "log")
	uri := "binary://" + a.logger("logger", "") + "?file=" + log
	_ = c.execWith("exec with logger", &taskapi.ExecProcessRequest{ExecID: "e2", Stdout: uri, Terminal: true}, "echo", "hello")
	if c.doStart("start exec with logger", "e2") == nil {
		c.wait("wait exec with logger", "e2")
		c.delete("delete exec with logger", "e2")
		// Not until its end: upstream's shim leaves an end of the logger's second pipe open
		// until the collector of garbage finds it, up to 30 seconds later.
		var data []byte
		a.eventually(func() bool {
			data, _ = os.ReadFile(log)
			return strings.Contains(string(data), "hello")
		})
		c.note("log of exec", "%v", sortedLines(strings.TrimSuffix(string(data), "the end\n")))
	}
	c.end()
}

func badStreams(a *act, _ *fakeruntime.Control) {
	for name, stdout := range map[string]string{
		"unknown scheme": "bogus:///x", "logger that is not there": "binary:///no/such/logger",
		"no URI": "file://%zz", "fifo that is not there": filepath.Join(a.cfg.Home.Dir, "nothing"),
	} {
		b := a.container(strings.ReplaceAll(name, " ", "-"), nil, "true")
		b.create.Stdout, b.create.Stderr = stdout, stdout
		b.doCreate("create with " + name)
	}
	t := a.container("terminal", func(s *specs.Spec) { s.Process.Terminal = true }, "true")
	t.create.Terminal, t.create.Stdout = true, "file://"+filepath.Join(a.cfg.Home.Dir, "file")
	t.doCreate("create with a terminal and a file")
	u := a.container("terminal-2", func(s *specs.Spec) { s.Process.Terminal = true }, "true")
	u.create.Terminal = true
	u.doCreate("create with a terminal and no output")
	v := a.container("terminal-3", nil, "true")
	v.create.Terminal = true
	v.create.Stdout = v.output("out").path()
	v.doCreate("create with a terminal that config.json has not")
}
