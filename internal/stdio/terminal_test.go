package stdio

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
)

// sendFds plays the runtime: it sends descriptors to the console socket.
func sendFds(t *testing.T, path string, fds ...int) {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix([]byte("/dev/ptmx"), oob, nil); err != nil {
		t.Fatal(err)
	}
}

// terminal starts a script on a terminal and sends its master to the IO.
func (r *rig) terminal(script string) *children.Process {
	r.t.Helper()
	master, slavePath, err := console.NewPty()
	if err != nil {
		r.t.Fatal(err)
	}
	defer master.Close()
	slave, err := os.OpenFile(slavePath, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer slave.Close()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p, err := r.owner.Start(cmd)
	if err != nil {
		r.t.Fatal(err)
	}
	sendFds(r.t, r.ConsolePath(), int(master.Fd()))
	return p
}

func TestTerminalCopies(t *testing.T) {
	r := newRig(t)
	in, out := r.fifo("in"), r.fifo("out")
	r.open(Spec{Stdin: in, Stdout: out, Stderr: out, Terminal: true})
	got := collect(r.reader(out))
	dir := filepath.Dir(r.ConsolePath())
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
	p := r.terminal("read line; stty size; echo got $line")
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the socket's directory is left: %v", err)
	}
	if n := held(t, "ptmx"); n != 1 {
		t.Errorf("%d masters are open", n)
	}
	if err := r.Resize(81, 25); err != nil {
		t.Error(err)
	}
	w := r.writer(in)
	if _, err := w.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	r.wait(p)
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if n := held(t, "ptmx"); n != 0 {
		t.Errorf("%d masters are open after the end", n)
	}
	if err := r.Resize(1, 1); err != nil {
		t.Errorf("resize of a terminal that is gone: %v", err)
	}
	r.Close()
	if s := receive(t, got); !strings.Contains(s, "25 81\r\ngot hello\r\n") {
		t.Errorf("%q", s)
	}
	if n := r.leftPipes() + held(t, r.dir); n > 2 { // this test's own ends
		t.Errorf("%d pipes or FIFOs are left", n)
	}
}

// F09: a size that is asked for before there is a terminal is its size.
func TestF09ResizeBeforeAttach(t *testing.T) {
	r := newRig(t)
	out := r.fifo("out")
	r.open(Spec{Stdout: out, Terminal: true})
	got := collect(r.reader(out))
	gate, open := r.gate("gate")
	for _, width := range []uint16{1, 81} {
		if err := r.Resize(width, 25); err != nil {
			t.Fatal(err)
		}
	}
	p := r.terminal("read x <" + gate + "; stty size")
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	open()
	r.exits(p, 0, got, "25 81\r\n")
}

// The end of stdin hangs the terminal up, as clients expect.
func TestTerminalEndOfStdin(t *testing.T) {
	r := newRig(t)
	in := r.fifo("in")
	r.open(Spec{Stdin: in, Terminal: true})
	p := r.terminal("cat")
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.CloseStdin()
	r.wait(p)
}

func TestTerminalWithoutReaderIsDiscarded(t *testing.T) {
	r := newRig(t).open(Spec{Terminal: true})
	p := r.terminal("head -c 1000000 /dev/zero")
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wait(p)
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// Row 35: what is not exactly one terminal's master is closed and refused.
func TestRow35WrongConsole(t *testing.T) {
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	regular, err := os.Create(filepath.Join(t.TempDir(), "regular"))
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	master, slavePath, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	slave, err := os.OpenFile(slavePath, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	m, s, f, g := int(master.Fd()), int(slave.Fd()), int(file.Fd()), int(regular.Fd())
	for name, fds := range map[string][]int{
		"none": {}, "two masters": {m, m}, "many": {m, f, g, s}, "a slave": {s}, "a device": {f}, "a file": {g},
	} {
		r := newRig(t).open(Spec{Terminal: true})
		before := held(t, "")
		sendFds(t, r.ConsolePath(), fds...)
		if err := r.Attach(t.Context()); !errdefs.IsInternal(err) {
			t.Errorf("%s: %v", name, err)
		}
		if after := held(t, ""); after != before {
			t.Errorf("%s: %d descriptors before, %d after", name, before, after)
		}
		r.Close()
	}
}

func TestRow35NobodyConnects(t *testing.T) {
	r := newRig(t).open(Spec{Terminal: true})
	ctx, cancel := contextWithTimeout(t, 100*time.Millisecond)
	defer cancel()
	if err := r.Attach(ctx); !errdefs.IsDeadlineExceeded(err) {
		t.Errorf("%v", err)
	}
	// Connected, but silent.
	conn, err := net.Dial("unix", r.ConsolePath())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel = contextWithTimeout(t, 100*time.Millisecond)
	defer cancel()
	if err := r.Attach(ctx); !errdefs.IsDeadlineExceeded(err) {
		t.Errorf("%v", err)
	}
}

// A runtime directory with a long name is passed over: a socket's path is short.
// F10: so is one that is gone.
func TestF10RuntimeDirTooLongOrGone(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", long)
	r := newRig(t).open(Spec{Terminal: true})
	if !strings.HasPrefix(r.ConsolePath(), "/tmp/") {
		t.Errorf("%s", r.ConsolePath())
	}
	// F10: and so is one that is gone, also together with TMPDIR.
	gone := filepath.Join(t.TempDir(), "gone")
	t.Setenv("XDG_RUNTIME_DIR", gone)
	t.Setenv("TMPDIR", gone+"-too")
	r = newRig(t).open(Spec{Terminal: true})
	if !strings.HasPrefix(r.ConsolePath(), "/tmp/") {
		t.Errorf("%s", r.ConsolePath())
	}
	short := t.TempDir()
	if len(short) > 60 {
		t.Fatalf("%s is not short", short)
	}
	t.Setenv("XDG_RUNTIME_DIR", short)
	r = newRig(t).open(Spec{Terminal: true})
	if !strings.HasPrefix(r.ConsolePath(), short) {
		t.Errorf("%s", r.ConsolePath())
	}
}
