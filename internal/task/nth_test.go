package task

// The N-th system call fails, for all N: rows 46 to 48, in one process and call by call.
// What is watched is this test binary, run again (package nth), with the whole of the
// shim's service in it; the runtime that it calls is not touched.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/nth"
	"github.com/larkshim/lark/internal/order"
)

// leastPoints is how many calls of each kind a container's life makes at least.
var leastPoints = map[unix.Errno]int{unix.EMFILE: 45, unix.ENOSPC: 10, unix.EAGAIN: 4, unix.EIO: 90, unix.EINTR: 100, nth.World: 70}

// interrupted is how far apart the calls are that are interrupted in one life. It is odd, so
// that it does not always meet the same of two that alternate.
const interrupted = 9

func TestRow46to48FailTheNthCall(t *testing.T) {
	w, err := nth.Join()
	if err != nil {
		t.Fatal(err)
	}
	if w == nil {
		nth.Rerun(t, runOwned, []unix.Errno{unix.EIO, unix.EINTR},
			[]unix.Errno{unix.EMFILE, unix.ENOSPC, unix.EAGAIN}, nth.Worlds())
		return
	}
	l := newLives(t, w)
	l.one(t, nth.Fault{}) // what is made once and stays is there after it
	l.baseline()
	nth.All(t, interrupted, leastPoints, l.one)
}

// runOwned runs a command as a child of the owner.
func runOwned(cmd *exec.Cmd) error {
	p, err := shared.owner.Start(cmd)
	if err != nil {
		return err
	}
	exit, err := p.Wait(context.Background())
	if err == nil && exit.Status != 0 {
		err = fmt.Errorf("exit status %d", exit.Status)
	}
	return err
}

// lives are containers, one after the other, of one shim.
type lives struct {
	*shim
	t      *testing.T // of the errno
	w      *nth.Watched
	stdout string
	source string
	// what there was before
	open       []string
	goroutines goleak.Option
}

func newLives(t *testing.T, w *nth.Watched) *lives {
	l := &lives{shim: newShim(t), t: t, w: w}
	l.stdout = filepath.Join(l.dir, "stdout")
	l.source = filepath.Join(l.dir, "source")
	if err := errors.Join(mkfifo(l.stdout), os.Mkdir(l.source, 0o700)); err != nil {
		t.Fatal(err)
	}
	// Somebody reads, so that no writer is kept waiting for that.
	reader, err := os.OpenFile(l.stdout, os.O_RDWR|oNonblock, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	return l
}

// baseline takes down what is open and runs.
func (l *lives) baseline() {
	var err error
	if l.open, err = nth.Descriptors(); err != nil {
		l.t.Fatal(err)
	}
	l.goroutines = goleak.IgnoreCurrent()
}

// one is the life of a container with a fault. It returns how many calls failed, and what
// was told of it.
func (l *lives) one(t *testing.T, f nth.Fault) (faults int, told error) {
	l.t = t
	// A runtime for each, whose journal is short.
	b, ctl := l.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.request.Stdout = l.stdout
	b.request.Rootfs = []*types.Mount{{Type: "bind", Source: l.source, Options: []string{"bind"}}}
	r, told := l.w.Armed(t, f, b.live)
	at := fmt.Sprintf("%v, %s", f, r.Failed)
	if told != nil {
		l.refused(at, b, told)
		b.bury(at, t)
	}
	if f.Errno == unix.EINTR && strings.Contains(l.log.String(), f.Errno.Error()) {
		t.Errorf("%s: the log tells of it", at)
	}
	l.nothingLeft(at, b, ctl)
	if t.Failed() {
		t.Fatalf("%s: told was %v; events %v; log:\n%s", at, told, l.kinds(b.id), l.log)
	}
	l.log.clear()
	return r.Faults, told
}

// refused says that the call that was told to have failed has done nothing.
func (l *lives) refused(at string, b *box, told error) {
	l.t.Helper()
	_, err := b.find2()
	init, exec := l.count(b.id, ""), l.count(b.id, "e")
	call, rest, _ := strings.Cut(told.Error(), ": ")
	done := false
	switch call {
	case "create":
		done = err == nil || len(init) > 0
	case "start":
		done = err != nil || init[order.Started] > 0
	case "exec":
		done = err != nil || strings.HasPrefix(rest, "start: ") && exec[order.Started] > 0
	case "kill":
		done = err != nil || init[order.Exited] > 0
	case "delete":
		done = err != nil || init[order.Deleted] > 0
	}
	if done {
		l.t.Errorf("%s: was refused and has happened: %v; state %v, events %v, %v", at, told, err, init, exec)
	}
}

// live is the whole of a life; the first error ends it.
func (b *box) live(ctx context.Context) error {
	if _, err := b.Create(ctx, b.request); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if _, err := b.Start(ctx, &task.StartRequest{ID: b.id}); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := b.liveExec(ctx); err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	if _, err := b.Kill(ctx, &task.KillRequest{ID: b.id, Signal: 9}); err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	if w, err := b.Wait(ctx, &task.WaitRequest{ID: b.id}); err != nil || w.ExitStatus != 137 {
		return fmt.Errorf("wait: %v, %w", w, err)
	}
	d, err := b.Delete(ctx, &task.DeleteRequest{ID: b.id})
	if err != nil || d.ExitStatus != 137 {
		return fmt.Errorf("delete: %v, %w", d, err)
	}
	return nil
}

func (b *box) liveExec(ctx context.Context) error {
	const id = "e"
	_, err := b.Exec(ctx, &task.ExecProcessRequest{ID: b.id, ExecID: id, Stdout: b.request.Stdout, Spec: anyJSON(`{"args":["sh","-c","exit 3"],"cwd":"/","env":["PATH=/bin:/usr/bin"]}`)})
	if err != nil {
		return err
	}
	if _, err := b.Start(ctx, &task.StartRequest{ID: b.id, ExecID: id}); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if w, err := b.Wait(ctx, &task.WaitRequest{ID: b.id, ExecID: id}); err != nil || w.ExitStatus != 3 {
		return fmt.Errorf("wait: %v, %w", w, err)
	}
	if d, err := b.Delete(ctx, &task.DeleteRequest{ID: b.id, ExecID: id}); err != nil || d.ExitStatus != 3 {
		return fmt.Errorf("delete: %v, %w", d, err)
	}
	return nil
}

// bury ends what is there of the container by the API, now that nothing fails.
func (b *box) bury(at string, t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := b.State(ctx, &task.StateRequest{ID: b.id}); errdefs.IsNotFound(err) {
		return
	}
	if _, err := b.Kill(ctx, &task.KillRequest{ID: b.id, Signal: 9}); err != nil && !errdefs.IsNotFound(err) {
		t.Errorf("%s: kill: %v", at, err)
	}
	if w, err := b.Wait(ctx, &task.WaitRequest{ID: b.id}); err != nil || w.ExitStatus != 137 {
		t.Errorf("%s: wait: %v, %v", at, w, err)
	}
	if _, err := b.Delete(ctx, &task.DeleteRequest{ID: b.id, ExecID: "e"}); err != nil && !errdefs.IsNotFound(err) {
		t.Errorf("%s: delete of the exec: %v", at, err)
	}
	if d, err := b.Delete(ctx, &task.DeleteRequest{ID: b.id}); err != nil || d.ExitStatus != 137 {
		t.Errorf("%s: delete: %v, %v", at, d, err)
	}
}

// nothingLeft is I9 and the order of events, after every life.
func (l *lives) nothingLeft(at string, b *box, ctl *fake.Control) {
	l.t.Helper()
	if _, err := b.find2(); !errdefs.IsNotFound(err) {
		l.t.Errorf("%s: state: %v", at, err)
	}
	gone(l.t, ctl)
	for _, dir := range append(cgroupsOf(b.id), filepath.Join(ctl.Root(), "lark-test", b.id)) {
		if _, err := os.Stat(dir); err == nil {
			l.t.Errorf("%s: %s is left", at, dir)
		}
	}
	if table, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(table), b.bundle) {
		l.t.Errorf("%s: a mount is left, %v", at, err)
	}
	l.files(at, b)
	if l.open != nil {
		var opened []string
		until(l.t, at+": descriptors are left", func() bool {
			var err error
			opened, err = nth.Opened(l.open)
			return err == nil && len(opened) == 0
		})
		if len(opened) > 0 {
			l.t.Errorf("%s: open are\n%s", at, l.w.Explain(opened))
		}
		var leak error
		until(l.t, at+": goroutines are left", func() bool {
			leak = goleak.Find(l.goroutines)
			return leak == nil
		})
		if leak != nil {
			l.t.Error(leak)
		}
	}
	l.inOrder(at, b)
}

// files says that nothing is in the bundle that has no business there.
func (l *lives) files(at string, b *box) {
	entries, err := os.ReadDir(b.bundle)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains([]string{"config.json", "options.json", "runtime", "init.pid", "exit.json", "log.json", "rootfs"}, e.Name()) {
			l.t.Errorf("%s: %s is left in the bundle", at, e.Name())
		}
	}
	if err := os.RemoveAll(b.bundle); err != nil {
		l.t.Error(err)
	}
}

// inOrder says that the events of a container are those of whole lives; the checker, at
// the end, that they came in order.
func (l *lives) inOrder(at string, b *box) {
	created := len(l.kinds(b.id)) > 0
	if !created {
		return
	}
	b.is(order.Deleted, "")
	for _, exec := range []string{"", "e"} {
		count := l.count(b.id, exec)
		started, exited := count[order.Started], count[order.Exited]
		if exec == "" && exited == 1 && count[order.Created] == 1 && count[order.Deleted] == 1 && started <= 1 {
			continue // a created init was killed for its delete
		}
		if exec == "" || started != exited || started > 1 || count[order.ExecAdded] > 1 {
			l.t.Errorf("%s: events of process %q: %v", at, exec, count)
		}
	}
}

// count counts the events of one process; an exec's start is a start.
func (l *lives) count(id, exec string) map[order.Kind]int {
	count := map[order.Kind]int{}
	l.events.mu.Lock()
	defer l.events.mu.Unlock()
	for _, e := range l.events.events {
		if e.Container != id || e.Exec != exec {
			continue
		}
		if e.Kind == order.ExecStarted {
			e.Kind = order.Started
		}
		count[e.Kind]++
	}
	return count
}
