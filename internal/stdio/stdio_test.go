package stdio

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestNullIsDevNull(t *testing.T) {
	r := newRig(t).open(Spec{})
	out := r.path("out")
	r.run(fmt.Sprintf("for i in 0 1 2; do readlink /proc/$$/fd/$i; done >%s", out))
	data, err := os.ReadFile(out)
	// Descriptor 1 is the file for as long as the loop runs.
	if want := "/dev/null\n" + out + "\n/dev/null\n"; err != nil || string(data) != want {
		t.Errorf("%q, %v", data, err)
	}
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFIFOs(t *testing.T) {
	r := newRig(t)
	in, out, errs := r.fifo("in"), r.fifo("out"), r.fifo("err")
	r.open(Spec{Stdin: in, Stdout: "fifo://" + out, Stderr: errs})
	gotOut, gotErr := collect(r.reader(out)), r.reader(errs)
	p := r.sh("cat; echo done >&2")
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := r.writer(in)
	fmt.Fprint(w, "hello")
	w.Close()
	// Our side still holds stdin open: only CloseStdin lets it end.
	r.CloseStdin()
	r.CloseStdin()
	r.wait(p)
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	r.Close()
	if got := receive(t, gotOut); got != "hello" {
		t.Errorf("stdout %q", got)
	}
	if got := receive(t, collect(gotErr)); got != "done\n" {
		t.Errorf("stderr %q", got)
	}
}

func TestCloseStdinIsRememberedBeforeAttach(t *testing.T) {
	r := newRig(t)
	r.open(Spec{Stdin: r.fifo("in")})
	r.CloseStdin()
	r.run("cat") // ends at once
}

// Row 39: a FIFO that nobody reads holds up neither New nor Attach, and breaks
// nothing when it is full; Close works all the same.
func TestRow39NobodyReads(t *testing.T) {
	r := newRig(t)
	began := time.Now()
	r.open(Spec{Stdout: r.fifo("out")})
	p := r.sh("head -c 1000000 /dev/zero; echo never")
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("the start took %v", took)
	}
	short, cancel := contextWithTimeout(t, 200*time.Millisecond)
	defer cancel()
	if _, err := p.Wait(short); err == nil {
		t.Error("a megabyte went into a FIFO that nobody reads")
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.wait(p)
	if err := r.Drain(short); err == nil {
		t.Error("Drain says that all was delivered")
	}
	r.Close()
}

func TestRow40WhatIsNotAStream(t *testing.T) {
	r := newRig(t)
	file := r.path("file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := r.fifo("fifo")
	link := r.path("link")
	if err := os.Symlink(fifo, link); err != nil {
		t.Fatal(err)
	}
	loop := r.path("loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	sock := r.path("sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: sock}); err != nil {
		t.Fatal(err)
	}
	before := held(t, "")
	minusOne := uint32(maxID) + 1 // as a client sends it
	for _, spec := range []Spec{
		{Stdout: r.path("missing")}, {Stdout: r.dir}, {Stdout: "file://" + r.dir}, {Stdout: "file://" + sock},
		{Stdout: sock}, {Stdout: "fifo://" + link}, {Stdout: "fifo:///dev/null"}, {Stdout: "fifo://" + file}, {Stdout: "file://" + fifo},
		{Stdout: "relative"}, {Stdout: "ftp://x/y"}, {Stdout: "file://host" + file}, {Stdout: "fifo:" + fifo[1:]},
		{Stderr: "fifo://" + link}, {Stderr: r.dir}, {Stdout: "file://" + link}, {Stdout: "file://" + loop}, {Stderr: "binary:///bin/true"}, {Stdout: "a\x00b"},
		{Stdin: r.path("missing")}, {Stdin: r.dir}, {Stdin: file}, {Stdin: link}, {Stdin: sock}, {Stdin: "file://" + file},
		{Stdin: "/dev/zero"}, {Stdin: "binary:///bin/true"},
		{Stdin: fifo, Stdout: fifo, Stderr: "fifo://" + link},
		{Terminal: true, Stdout: file}, {Terminal: true, Stdout: "file://" + file}, {Terminal: true, Stdin: file},
		{Terminal: true, Stdout: r.path("missing")},
		{Stdout: fifo, UID: -1}, {Stdout: fifo, GID: int(minusOne)},
	} {
		if err := r.try(spec); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", spec, err)
		}
	}
	if after := held(t, ""); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// Row 41: the reader goes away and returns, and copying goes on.
func TestRow41ReaderGoesAwayAndReturns(t *testing.T) {
	r := newRig(t)
	out, in := r.fifo("out"), r.fifo("in")
	first := r.reader(out)
	r.open(Spec{Stdin: in, Stdout: out})
	p := r.sh("while read line; do echo $line; done")
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := r.writer(in)
	readLine := func(f *os.File) string {
		b := make([]byte, 64)
		_ = f.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := f.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	fmt.Fprintln(w, "one")
	if got := readLine(first); got != "one\n" {
		t.Errorf("%q", got)
	}
	first.Close()
	fmt.Fprintln(w, "two") // while nobody reads
	second := r.reader(out)
	if got := readLine(second); got != "two\n" {
		t.Errorf("%q", got)
	}
	w.Close()
	r.CloseStdin()
	r.wait(p)
}

// Row 41: what cannot be written is read on, counted, and logged once.
func TestRow41WriteErrorKeepsDraining(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC, unix.EPIPE} {
		r := newRig(t)
		file := r.path("file")
		if err := os.WriteFile(file, []byte("old\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.open(Spec{Stdout: file, Stderr: file})
		r.sinks[0].k = failingWrites{host{}, errno}
		r.run("head -c 1000000 /dev/zero; head -c 1000 /dev/zero >&2")
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if got := r.Lost(); got != 1001000 {
			t.Errorf("%v: lost %d bytes", errno, got)
		}
		r.Close()
		if n := r.log.count("output cannot be written"); n != 1 {
			t.Errorf("%v: logged %d times", errno, n)
		}
		if n := r.log.count("bytes=1001000"); n != 1 {
			t.Errorf("%v: the total was logged %d times", errno, n)
		}
	}
}

type failingWrites struct {
	kernel
	errno unix.Errno
}

func (f failingWrites) write(int, []byte) (int, error) { return 0, f.errno }

// Row 42: a stdin that nobody writes or closes goes with the process.
func TestRow42StdinNobodyWrites(t *testing.T) {
	r := newRig(t)
	in := r.fifo("in")
	r.open(Spec{Stdin: in})
	w := r.writer(in) // never closed
	defer w.Close()
	r.run("true")
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	r.Close()
	if n := r.leftPipes(); n != 0 {
		t.Errorf("%d pipes are left", n)
	}
}

func TestRow43OnePathForBoth(t *testing.T) {
	r := newRig(t)
	out := r.fifo("out")
	r.open(Spec{Stdout: out, Stderr: out})
	got := collect(r.reader(out))
	r.run("echo a; echo b >&2")
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	r.Close()
	if s := receive(t, got); len(s) != 4 || !strings.Contains(s, "a\n") || !strings.Contains(s, "b\n") {
		t.Errorf("%q", s)
	}
}

func TestRow43StderrAlone(t *testing.T) {
	r := newRig(t)
	errs := r.fifo("err")
	r.open(Spec{Stderr: errs})
	got := collect(r.reader(errs))
	r.run("echo a; echo b >&2")
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	r.Close()
	if s := receive(t, got); s != "b\n" {
		t.Errorf("%q", s)
	}
}

// Row 44: all bytes arrive as they were, in large and in small pieces.
func TestRow44BinaryData(t *testing.T) {
	r := newRig(t)
	out, in := r.fifo("out"), r.fifo("in")
	r.open(Spec{Stdin: in, Stdout: out})
	got := collect(r.reader(out))
	p := r.sh("cat")
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	w := r.writer(in)
	for i, size := range []int{1, 7, 70000, 1, 300000, 16384, 3, 1 << 20} {
		piece := bytes.Repeat([]byte{byte(i), 0, 255, '\n'}, size)
		want.Write(piece)
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	r.CloseStdin()
	r.wait(p)
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	r.Close()
	if s := receive(t, got); s != want.String() {
		t.Errorf("%d bytes came, not the %d that were sent", len(s), want.Len())
	}
}

// Row 45: what is still in the pipe when the process exits is delivered before
// Drain returns.
func TestRow45WhatIsInThePipe(t *testing.T) {
	r := newRig(t)
	out := r.fifo("out")
	r.open(Spec{Stdout: out})
	p := r.sh("head -c 65536 /dev/zero")
	r.wait(p) // nobody copies yet: all of it is in the pipe
	reader := r.reader(out)
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := collect(reader)
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	r.Close()
	if s := receive(t, got); len(s) != 65536 {
		t.Errorf("%d bytes", len(s))
	}
}

// A child in the background that keeps an exec's stdout does not keep Close.
func TestCloseFreesWhatABackgroundChildHolds(t *testing.T) {
	r := newRig(t)
	out := r.fifo("out")
	_ = r.reader(out)
	r.open(Spec{Stdout: out, Stderr: r.fifo("err")})
	r.run("sleep 1000 & echo $! >" + r.path("pid"))
	ctx, cancel := contextWithTimeout(t, 100*time.Millisecond)
	defer cancel()
	if err := r.Drain(ctx); err == nil {
		t.Error("drained, and somebody holds the pipe")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n := r.leftPipes(); n != 0 {
		t.Errorf("%d pipes are left", n)
	}
	data, err := os.ReadFile(r.path("pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(data), &pid); err != nil || pid < 2 {
		t.Fatalf("%q, %v", data, err)
	}
	_ = unix.Kill(pid, unix.SIGKILL)
}

// A start that failed leaves no pipe (upstream's TestContainerIOLeakAfterStartFailed).
func TestNoPipeIsLeftOfAFailedStart(t *testing.T) {
	r := newRig(t)
	r.open(Spec{Stdin: r.fifo("in"), Stdout: r.fifo("out"), Stderr: r.fifo("err")})
	if r.leftPipes() == 0 {
		t.Fatal("no pipe was made")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n := r.leftPipes() + held(t, r.dir); n != 0 {
		t.Errorf("%d pipes or FIFOs are left", n)
	}
	if err := r.Attach(t.Context()); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("Attach after Close: %v", err)
	}
}

func TestFiles(t *testing.T) {
	r := newRig(t)
	plain, made := r.path("plain"), r.path("a/b/made")
	if err := os.WriteFile(plain, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.open(Spec{Stdout: plain, Stderr: "file://" + made})
	r.run("echo out; echo err >&2")
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{plain: "old\nout\n", made: "err\n"} {
		if data, err := os.ReadFile(path); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v", path, data, err)
		}
	}
	if st, err := os.Stat(made); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestPipesBelongToTheUser(t *testing.T) {
	r := newRig(t)
	out := r.fifo("out")
	r.open(Spec{Stdin: r.fifo("in"), Stdout: out, UID: 1234, GID: 4321})
	got := collect(r.reader(out))
	r.run("stat -L -c %u:%g /proc/self/fd/0 /proc/self/fd/1")
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	r.Close()
	if s := receive(t, got); s != "1234:4321\n1234:4321\n" {
		t.Errorf("%q", s)
	}
}

// The container's end must not be non-blocking: programs do not expect EAGAIN.
func TestTheContainersEndsBlock(t *testing.T) {
	r := newRig(t)
	r.open(Spec{Stdin: r.fifo("in"), Stdout: r.fifo("out"), Stderr: r.fifo("err")})
	for i, f := range r.given {
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			flags, err := unix.FcntlInt(fd, syscall.F_GETFL, 0)
			if err != nil || flags&unix.O_NONBLOCK != 0 {
				t.Errorf("descriptor %d: flags %o, %v", i, flags, err)
			}
		})
	}
}
