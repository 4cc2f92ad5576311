package stdio

// bench_test.go is what the tests share: FIFOs, and processes that play the
// container's.

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
)

// TestMain keeps what the test itself was given from the processes it starts.
func TestMain(m *testing.M) {
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// rig is one IO under test, its owner and its log.
type rig struct {
	*IO
	t     *testing.T
	owner *children.Owner
	log   *logText
	dir   string
	pipes int // of the test itself
}

// logText is a log that can be read while it is written.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logText) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// owners has the Owner of each test, however many rigs it makes: a program can
// have one Owner at a time.
var owners sync.Map // *testing.T -> *children.Owner

func ownerOf(t *testing.T) *children.Owner {
	t.Helper()
	if o, ok := owners.Load(t); ok {
		return o.(*children.Owner)
	}
	owner, err := children.NewOwner(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	owners.Store(t, owner)
	t.Cleanup(func() {
		owners.Delete(t)
		owner.Close()
	})
	return owner
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{t: t, owner: ownerOf(t), log: &logText{}, dir: t.TempDir(), pipes: held(t, "pipe:")}
}

// open makes the IO; the test fails if it cannot be made.
func (r *rig) open(spec Spec) *rig {
	r.t.Helper()
	if err := r.try(spec); err != nil {
		r.t.Fatal(err)
	}
	return r
}

func (r *rig) try(spec Spec) (err error) {
	r.IO, err = New(r.t.Context(), r.owner, slog.New(slog.NewTextHandler(r.log, nil)), spec)
	if opened := r.IO; err == nil {
		r.t.Cleanup(func() { opened.Close() })
	}
	return err
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// fifo makes a FIFO.
func (r *rig) fifo(name string) string {
	r.t.Helper()
	path := r.path(name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// reader opens a FIFO as a client does, without waiting for a writer.
func (r *rig) reader(path string) *os.File {
	r.t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	r.t.Cleanup(func() { f.Close() })
	return f
}

func (r *rig) writer(path string) *os.File {
	r.t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { f.Close() })
	return f
}

// sh starts a shell that has the IO's streams.
func (r *rig) sh(script string) *children.Process {
	r.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	r.Set(cmd)
	p, err := r.owner.Start(cmd)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.CloseAfterStart(); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// run runs a script to its end, with its output copied.
func (r *rig) run(script string) {
	r.t.Helper()
	p := r.sh(script)
	if err := r.Attach(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.wait(p)
}

func (r *rig) wait(p *children.Process) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	if _, err := p.Wait(ctx); err != nil {
		r.t.Fatal(err)
	}
}

// collect reads a FIFO to its end, beside the test.
func collect(f io.Reader) <-chan string {
	out := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(f)
		out <- string(b)
	}()
	return out
}

// receive takes from a channel, within reason.
func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// leftPipes is how many pipes there are beyond those that were there before.
func (r *rig) leftPipes() int { return held(r.t, "pipe:") - r.pipes }

// held counts this process's descriptors of a kind, without those that the owner's
// sweep has open for a moment: it takes the least of several counts, and none of
// /proc's files.
func held(t *testing.T, what string) int {
	t.Helper()
	least := heldNow(t, what)
	for range 4 {
		least = min(least, heldNow(t, what))
	}
	return least
}

func heldNow(t *testing.T, what string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.Contains(target, what) && !strings.HasPrefix(target, "/proc/") {
			n++
		}
	}
	return n
}

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
