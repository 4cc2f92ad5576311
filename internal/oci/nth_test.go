package oci

// The N-th system call fails, for all N: rows 46 to 48. This test binary runs again under
// supervision (package nth) and calls a runtime that is a script, so that a life takes
// milliseconds; its container has a pid namespace, so that what it leaves can be told.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/nth"
)

// script is the runtime. It refuses to kill, and its delete leaves its directory, as an
// old runc does that was killed.
const script = `#!/bin/sh
while [ $# -gt 0 ]; do
	case $1 in
	--root) root=$2; shift ;;
	--log) log=$2; shift ;;
	--pid-file) pidfile=$2; shift ;;
	--process) cat "$2" >/dev/null || exit 9; shift ;;
	--bundle | --log-format | --resources) shift ;;
	create | start | exec | kill | delete | state | ps | update) op=$1 ;;
	esac
	shift
done
run='sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >"$0"'
case $op in
create) mkdir -p "$root/x/left" && exec unshare --pid sh -c "$run" "$pidfile" ;;
exec) exec nsenter --no-fork --pid=/proc/$(cat init.pid)/ns/pid sh -c "$run" "$pidfile" ;;
state) echo '{"id":"x","status":"running"}' ;;
ps) echo '[7]' ;;
update) cat >/dev/null ;;
kill)
	echo '{"level":"error","msg":"it will not"}' >>"$log"
	echo 'it will not' >&2
	exit 1
	;;
esac
`

// leastPoints is how many calls of each kind the life of a container makes at least.
var leastPoints = map[unix.Errno]int{unix.EMFILE: 20, unix.ENOSPC: 2, unix.EAGAIN: 8, unix.EIO: 50, unix.EINTR: 80, nth.World: 45}

// interrupted is how far apart the calls are that are interrupted in one life: nobody is
// to notice, so that one will do for many.
const interrupted = 9

func TestRow46to48FailTheNthCallOfARuntimeCall(t *testing.T) {
	w, err := nth.Join()
	if err != nil {
		t.Fatal(err)
	}
	if w == nil {
		nth.Rerun(t, (*exec.Cmd).Run, []unix.Errno{unix.EIO, unix.ENOSPC}, []unix.Errno{unix.EMFILE, unix.EAGAIN, unix.EINTR}, nth.Worlds())
		return
	}
	l := newLives(t, w)
	l.one(t, nth.Fault{})
	l.baseline(t)
	nth.All(t, interrupted, leastPoints, l.one)
}

// lives are containers, one after the other, of one owner of children.
type lives struct {
	*Runtime
	w          *nth.Watched
	owner      *children.Owner
	log        *bytes.Buffer
	open       []string
	goroutines goleak.Option
}

func newLives(t *testing.T, w *nth.Watched) *lives {
	l := &lives{w: w, owner: ownerOf(t), log: &bytes.Buffer{}}
	dir := t.TempDir()
	binary := filepath.Join(dir, "runtime")
	if err := os.WriteFile(binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	// Written by one goroutine at a time: the test's.
	log := slog.New(slog.NewTextHandler(l.log, nil))
	var err error
	if l.Runtime, err = New(Config{Binary: binary, Root: filepath.Join(dir, "root"), Dir: dir, Owner: l.owner, Log: log}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lives) baseline(t *testing.T) {
	var err error
	if l.open, err = nth.Descriptors(); err != nil {
		t.Fatal(err)
	}
	l.goroutines = goleak.IgnoreCurrent()
}

// one is the life of a container with a fault. It returns how many calls failed, and what
// was told of it.
func (l *lives) one(t *testing.T, f nth.Fault) (faults int, told error) {
	var made []*children.Child
	r, told := l.w.Armed(t, f, func(ctx context.Context) error { return l.live(ctx, &made) })
	at := fmt.Sprintf("%v, %s", f, r.Failed)
	if f.Errno == unix.EINTR && bytes.Contains(l.log.Bytes(), []byte(f.Errno.Error())) {
		t.Errorf("%s: the log tells of it", at)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, child := range slices.Backward(made) { // an init is there until the rest was reaped
		if err := end(ctx, child); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
	if err := l.Clear(ctx, "x"); err != nil {
		t.Errorf("%s: clear: %v", at, err)
	}
	l.nothingLeft(t, at)
	if t.Failed() {
		t.Fatalf("%s: told was %v; log:\n%s", at, told, l.log)
	}
	l.log.Reset()
	return r.Faults, told
}

// live makes every kind of call once, and two processes. The first error ends it.
func (l *lives) live(ctx context.Context, made *[]*children.Child) error {
	space := children.NewNamespace()
	spawn := func(child *children.Child, err error) error {
		if err == nil {
			*made = append(*made, child)
		}
		return err
	}
	if err := spawn(l.Create(ctx, "x", CreateCall{PidFile: filepath.Join(l.dir, "init.pid"), Namespace: space})); err != nil {
		return err
	}
	if err := l.Start(ctx, "x"); err != nil {
		return err
	}
	if err := spawn(l.Exec(ctx, "x", ExecCall{PidFile: filepath.Join(l.dir, "e.pid"), Process: []byte("{}"), Namespace: space})); err != nil {
		return err
	}
	if err := l.Update(ctx, "x", &specs.LinuxResources{}); err != nil {
		return err
	}
	if pids, err := l.Pids(ctx, "x"); err != nil || len(pids) != 1 {
		return fmt.Errorf("pids %v: %w", pids, err)
	}
	if err := l.Kill(ctx, "x", unix.SIGTERM, false); !hasRefused(err) {
		return fmt.Errorf("kill: %w", err)
	}
	for _, child := range slices.Backward(*made) {
		if err := end(ctx, child); err != nil {
			return err
		}
	}
	*made = nil
	if err := l.Delete(ctx, "x", false); err != nil {
		return err
	}
	return l.Clear(ctx, "x")
}

// hasRefused says that a call was answered by the runtime.
func hasRefused(err error) bool {
	e := asError(err)
	return e != nil && refused(e)
}

// end kills a child and waits for its exit.
func end(ctx context.Context, child *children.Child) error {
	if err := child.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal: %w", err)
	}
	exit, err := child.Wait(ctx)
	if err != nil || exit.Status != 137 {
		return fmt.Errorf("exit %+v: %w", exit, err)
	}
	return nil
}

// nothingLeft is I9: no process, no file, no descriptor, no goroutine.
func (l *lives) nothingLeft(t *testing.T, at string) {
	t.Helper()
	eventually(t, at, func() string {
		files, _ := filepath.Glob("/proc/self/task/*/children")
		for _, file := range files {
			if pids, err := os.ReadFile(file); err == nil && len(bytes.TrimSpace(pids)) > 0 {
				return "children are left: " + string(pids)
			}
		}
		return ""
	})
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "e.pid" && bytes.Contains(l.log.Bytes(), []byte("stays behind")) {
			// It could not be removed, and that was logged; who deletes the exec tries again.
			if err := os.Remove(filepath.Join(l.dir, "e.pid")); err != nil {
				t.Error(err)
			}
			continue
		}
		if !slices.Contains([]string{"runtime", "root", "init.pid", logName}, e.Name()) {
			t.Errorf("%s: %s is left", at, e.Name())
		}
	}
	if l.open == nil {
		return
	}
	var opened []string
	eventually(t, at, func() (wrong string) {
		var err error
		if opened, err = nth.Opened(l.open); err != nil || len(opened) > 0 {
			wrong = fmt.Sprintf("open are %q, %v", opened, err)
		}
		return wrong
	})
	if len(opened) > 0 {
		t.Error(l.w.Explain(opened))
	}
	eventually(t, at, func() string {
		if err := goleak.Find(l.goroutines); err != nil {
			return err.Error()
		}
		return ""
	})
}

// eventually looks at what no event tells of until wrong says nothing.
func eventually(t *testing.T, at string, wrong func() string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		said := wrong()
		if said == "" {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s: %s", at, said)
			return
		}
		<-time.After(time.Millisecond)
	}
}
