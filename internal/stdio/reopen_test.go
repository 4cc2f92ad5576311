package stdio

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
)

// terminalReads counts what the pumps ask of a terminal, by outcome.
type terminalReads struct {
	kernel
	all, hungUp atomic.Int32
}

func (k *terminalReads) read(fd int, p []byte) (int, error) {
	n, err := k.kernel.read(fd, p)
	k.all.Add(1)
	if err == unix.EIO {
		k.hungUp.Add(1)
	}
	return n, err
}

// openCounted makes the IO over a kernel that counts.
func (r *rig) openCounted(spec Spec) *terminalReads {
	r.t.Helper()
	k := &terminalReads{kernel: host{}}
	io, err := open(r.t.Context(), restarting{k}, r.owner, slog.New(slog.NewTextHandler(r.log, nil)), spec)
	if err != nil {
		r.t.Fatal(err)
	}
	r.IO = io
	r.t.Cleanup(func() { io.Close() })
	return k
}

// until waits for a condition that has no event of its own.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: never", what)
		}
	}
}

// gate makes a FIFO that a script waits at by reading a line from it.
func (r *rig) gate(name string) (path string, open func()) {
	path = r.fifo(name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { f.Close() })
	return path, func() { fmt.Fprintln(f) }
}

// exits waits for a terminal's process and checks its status and its output.
func (r *rig) exits(p *children.Process, status uint32, got <-chan string, want string) {
	r.t.Helper()
	exit, err := p.Wait(r.t.Context())
	if err != nil || exit.Status != status {
		r.t.Errorf("the process ended with %d, want %d: %v", exit.Status, status, err)
	}
	if err := r.Drain(r.t.Context()); err != nil {
		r.t.Error(err)
	}
	r.Close()
	if s := receive(r.t, got); s != want {
		r.t.Errorf("%q, want %q", s, want)
	}
}

// F06: a process that closes its terminal for good goes on, and its stream costs
// nothing until it exits.
func TestF06TerminalClosedBeforeTheExit(t *testing.T) {
	r := newRig(t)
	out := r.fifo("out")
	k := r.openCounted(Spec{Stdout: out, Terminal: true})
	got := collect(r.reader(out))
	gate, open := r.gate("gate")
	p := r.terminal(fmt.Sprintf("echo FIRST; exec </dev/null >%s 2>&1; read x <%s; echo DONE; exit 5", r.path("job"), gate))
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the hang-up", func() bool { return k.hungUp.Load() > 0 })
	before := k.all.Load()
	time.Sleep(50 * time.Millisecond) // a spin would count thousands
	if n := k.all.Load() - before; n > 10 {
		t.Errorf("%d reads of a terminal that is closed", n)
	}
	open()
	r.exits(p, 5, got, "FIRST\r\n")
	if s := r.content("job"); s != "DONE\n" {
		t.Errorf("the job wrote %q", s)
	}
}

// F06: an init that closes its console and opens it again loses no output, however
// often; each time costs a bounded number of reads.
func TestF06ConsoleClosedAndOpenedAgain(t *testing.T) {
	const times = 50
	r := newRig(t)
	out := r.fifo("out")
	k := r.openCounted(Spec{Stdout: out, Terminal: true})
	lines := bufio.NewReader(r.reader(out))
	gate, open := r.gate("gate")
	p := r.terminal(fmt.Sprintf(`t=$(tty); exec 3<>%s; i=0; while [ $i -lt %d ]; do
		exec </dev/null >/dev/null 2>&1
		read x <&3
		exec <$t >$t 2>&1
		echo line $i; i=$((i+1))
	done; exit 7`, gate, times))
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range times {
		hungUp := k.hungUp.Load()
		if i == 0 {
			hungUp = 0
		}
		until(t, "the hang-up", func() bool { return k.hungUp.Load() >= hungUp })
		open()
		if s, err := lines.ReadString('\n'); err != nil || s != fmt.Sprintf("line %d\r\n", i) {
			t.Fatalf("%q, %v", s, err)
		}
	}
	r.exits(p, 7, collect(lines), "")
	// A line, what is after it, and the edges of its open and close.
	if n := k.all.Load(); n > 20*times {
		t.Errorf("%d reads for %d lines", n, times)
	}
}

// F06: input for a terminal that is closed for the moment is there when it is
// open again.
func TestF06InputWhileTheTerminalIsClosed(t *testing.T) {
	r := newRig(t)
	in, out := r.fifo("in"), r.fifo("out")
	k := r.openCounted(Spec{Stdin: in, Stdout: out, Terminal: true})
	got := collect(r.reader(out))
	gate, open := r.gate("gate")
	p := r.terminal(fmt.Sprintf(`stty -echo; t=$(tty); exec </dev/null >/dev/null 2>&1; read x <%s
		exec <$t >$t 2>&1; read line; echo got $line; exit 3`, gate))
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the hang-up", func() bool { return k.hungUp.Load() > 0 })
	if _, err := r.writer(in).WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	open()
	r.exits(p, 3, got, "got hello\r\n")
	if strings.Contains(r.log.String(), "lost") {
		t.Error(r.log.String())
	}
}

// F06: what holds the terminal after the exit of its process is waited for as
// Drain's bound says and no longer.
func TestF06TerminalHeldAfterTheExit(t *testing.T) {
	r := newRig(t)
	out := r.fifo("out")
	r.openCounted(Spec{Stdout: out, Terminal: true})
	got := collect(r.reader(out))
	gate, open := r.gate("gate")
	p := r.terminal(fmt.Sprintf("trap '' HUP; { read x <%s; echo LATE; } & echo FIRST", gate))
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wait(p)
	r.Exited()
	ctx, cancel := contextWithTimeout(t, 10*time.Millisecond)
	defer cancel()
	if err := r.Drain(ctx); err == nil {
		t.Error("drained, while the terminal is open")
	}
	open()
	r.exits(p, 0, got, "FIRST\r\nLATE\r\n")
}
