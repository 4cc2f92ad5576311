//go:build failpoint

package task

// F13: a panic at every point, one at a time. Package crash builds and runs this,
// since the points are not in an ordinary build.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/failpoint"
	fake "github.com/larkshim/lark/internal/fakeruntime"
)

// moment is one occurrence of a failpoint in a life.
type moment struct {
	name string
	n    int
}

// bomb panics at one point, and counts all.
type bomb struct {
	mu    sync.Mutex
	at    moment
	seen  map[string]int
	order []moment
	fired bool
}

func (b *bomb) pass(name string) {
	b.mu.Lock()
	b.seen[name]++
	p := moment{name, b.seen[name]}
	b.order = append(b.order, p)
	fire := p == b.at
	b.fired = b.fired || fire
	b.mu.Unlock()
	if fire {
		panic(fmt.Sprintf("at point %q, time %d", p.name, p.n))
	}
}

func (b *bomb) hasFired() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fired
}

// life is what clients do with a container. Any call may fail once a panic has
// been; what counts is that each is answered, and how it ends.
type life struct {
	*box
	ctl   *fake.Control
	waits []<-chan tried[*task.WaitResponse]
}

// call makes a call as the server does and waits for its answer.
func call[Q, A any](l *life, what string, method func(context.Context, Q) (A, error), request Q) error {
	l.t.Helper()
	return ended(l.t, what, begin(func() (A, error) {
		return caught(func() (A, error) { return method(context.Background(), request) })
	})).err
}

func (l *life) waitFor(exec string) {
	l.waits = append(l.waits, begin(func() (*task.WaitResponse, error) {
		return caught(func() (*task.WaitResponse, error) {
			return l.Wait(context.Background(), &task.WaitRequest{ID: l.id, ExecID: exec})
		})
	}))
}

func (l *life) addExecWithIO(id string) {
	spec := &anypb.Any{Value: []byte(`{"args":["cat"],"cwd":"/"}`)}
	in, out := filepath.Join(l.dir, id+"-in"), filepath.Join(l.dir, id+"-out")
	for _, path := range []string{in, out} {
		if err := mkfifo(path); err != nil {
			l.t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR|oNonblock, 0)
		if err != nil {
			l.t.Fatal(err)
		}
		l.t.Cleanup(func() { f.Close() })
	}
	call(l, "exec", l.Exec, &task.ExecProcessRequest{ID: l.id, ExecID: id, Spec: spec, Stdin: in, Stdout: out})
}

// whole is a life with everything in it, in the host's pid namespace.
func (l *life) whole() {
	id := l.id
	call(l, "create", l.Create, l.request)
	call(l, "connect", l.Connect, &task.ConnectRequest{ID: id})
	call(l, "start", l.Start, &task.StartRequest{ID: id})
	l.waitFor("")
	call(l, "state", l.State, &task.StateRequest{ID: id})
	call(l, "pids", l.Pids, &task.PidsRequest{ID: id})
	call(l, "stats", l.Stats, &task.StatsRequest{ID: id})
	l.addExecWithIO("e1")
	l.waitFor("e1")
	call(l, "resize", l.ResizePty, &task.ResizePtyRequest{ID: id, ExecID: "e1", Width: 80, Height: 25})
	call(l, "start of an exec", l.Start, &task.StartRequest{ID: id, ExecID: "e1"})
	l.addExecWithIO("e2")
	call(l, "delete of an added exec", l.Delete, &task.DeleteRequest{ID: id, ExecID: "e2"})
	call(l, "update", l.Update, &task.UpdateTaskRequest{ID: id, Resources: &anypb.Any{Value: []byte("{}")}})
	call(l, "pause", l.Pause, &task.PauseRequest{ID: id})
	call(l, "resume", l.Resume, &task.ResumeRequest{ID: id})
	l.runsAgain()
	call(l, "close io", l.CloseIO, &task.CloseIORequest{ID: id, ExecID: "e1", Stdin: true})
	call(l, "kill of an exec", l.Kill, &task.KillRequest{ID: id, ExecID: "e1", Signal: 9})
}

// runsAgain: whatever became of a pause or a resume, the container is not between
// the two, and one that is paused can be resumed.
func (l *life) runsAgain() {
	for range 3 {
		r, err := caught(func() (*task.StateResponse, error) {
			return l.State(context.Background(), &task.StateRequest{ID: l.id})
		})
		if err != nil || r.Status != apitypes.Status_PAUSING && r.Status != apitypes.Status_PAUSED {
			return
		}
		call(l, "resume", l.Resume, &task.ResumeRequest{ID: l.id})
	}
	l.t.Error("a container that was paused does not run again")
}

// restored is the life of a container that begins with a dump.
func (l *life) restored() {
	l.request.Checkpoint = filepath.Join(l.dir, "dump")
	if err := os.Mkdir(l.request.Checkpoint, 0o700); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.request.Checkpoint, "fake.img"), nil, 0o600); err != nil {
		l.t.Fatal(err)
	}
	call(l, "create", l.Create, l.request)
	l.waitFor("")
	call(l, "start", l.Start, &task.StartRequest{ID: l.id})
	call(l, "checkpoint", l.Checkpoint, &task.CheckpointTaskRequest{ID: l.id, Path: l.request.Checkpoint})
}

// created is a life that ends with its Create.
func (l *life) created() { call(l, "create", l.Create, l.request) }

// execed is one with an exec in it and no more.
func (l *life) execed() {
	l.created()
	call(l, "start", l.Start, &task.StartRequest{ID: l.id})
	l.waitFor("")
	l.addExecWithIO("e1")
	l.waitFor("e1")
	call(l, "start of an exec", l.Start, &task.StartRequest{ID: l.id, ExecID: "e1"})
}

// end kills and deletes what there is. The panic may come here, and then it is
// asked again.
func (l *life) end(b *bomb) {
	for {
		before := b.hasFired()
		if err := call(l, "state", l.State, &task.StateRequest{ID: l.id}); errdefs.IsNotFound(err) {
			break
		}
		for _, exec := range []string{"", "e1", "e2"} {
			err := call(l, "kill", l.Kill, &task.KillRequest{ID: l.id, ExecID: exec, Signal: 9})
			if errdefs.IsInternal(err) && before != b.hasFired() { // the panic was here
				call(l, "kill", l.Kill, &task.KillRequest{ID: l.id, ExecID: exec, Signal: 9})
			}
			l.waitFor(exec)
		}
		for _, w := range l.waits {
			ended(l.t, "wait", w)
		}
		l.waits = nil
		call(l, "delete", l.Delete, &task.DeleteRequest{ID: l.id, ExecID: "e1"})
		err := call(l, "delete", l.Delete, &task.DeleteRequest{ID: l.id})
		if err != nil && before == b.hasFired() {
			l.t.Fatalf("the container cannot be deleted: %v", err)
		}
	}
	for _, w := range l.waits {
		ended(l.t, "wait", w)
	}
	for {
		before := b.hasFired()
		if call(l, "shutdown", l.Shutdown, &task.ShutdownRequest{}) == nil || before == b.hasFired() {
			break
		}
	}
	<-begin(func() (struct{}, error) { <-l.shutdown; return struct{}{}, nil })
}

// leftNothing looks for what is left of a container that is gone.
func (l *life) leftNothing() {
	gone(l.t, l.ctl)
	state := filepath.Join(l.ctl.Root(), "lark-test", l.id)
	for _, path := range append(cgroupsOf(l.id), state) {
		if _, err := os.Stat(path); err == nil {
			l.t.Errorf("%s is left", path)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(l.bundle, "exec-*")); len(left) > 0 {
		l.t.Errorf("%v is left", left)
	}
}

// live runs one life with the bomb in it.
func live(t *testing.T, b *bomb, change func(*specs.Spec), fails fake.Point, run func(*life)) {
	failpoint.Watch(b.pass)
	defer failpoint.Watch(nil)
	s := newShim(t)
	profile := fake.Profile{}
	if fails != "" {
		profile = fake.On(fails, fake.Fail("no"))
	}
	box, ctl := s.scripted(change, profile, "sh", "-c", "sleep 1000 & exec sleep 1000")
	l := &life{box: box, ctl: ctl}
	run(l)
	l.end(b)
	failpoint.Watch(nil)
	l.leftNothing()
}

// TestF13PanicAtEveryPoint lets a panic happen at every point that four lives come
// to, in handlers and in goroutines, one in each run. After each every call is
// answered, every exit told, nothing alive and nothing left, and the container was
// killed and deleted.
func TestF13PanicAtEveryPoint(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*specs.Spec)
		run    func(*life)
		least  int
		fails  fake.Point
	}{
		"whole":    {hostPID, (*life).whole, 90, ""},
		"restored": {nil, (*life).restored, 45, ""},
		// The undoing of what failed is to survive a panic too.
		"create fails": {hostPID, (*life).created, 15, fake.After(fake.Create)},
		"exec fails":   {hostPID, (*life).execed, 40, fake.After(fake.Exec)},
	} {
		t.Run(name, func(t *testing.T) {
			dry := &bomb{seen: map[string]int{}}
			t.Run("without", func(t *testing.T) { live(t, dry, c.change, c.fails, c.run) })
			fds, routines := count(t)
			panics := 0
			for _, at := range dry.order {
				b := &bomb{at: at, seen: map[string]int{}}
				t.Run(fmt.Sprintf("%s,%d", at.name, at.n), func(t *testing.T) { live(t, b, c.change, c.fails, c.run) })
				if b.hasFired() {
					panics++
				}
			}
			until(t, "descriptors or goroutines are left", func() bool {
				f, r := count(t)
				return f <= fds && r <= routines
			})
			if f, r := count(t); t.Failed() {
				t.Logf("descriptors %d before, %d after; goroutines %d, %d", fds, f, routines, r)
			}
			fmt.Printf("panics: %s: %d points with %d names, %d panics\n", name, len(dry.order), len(dry.seen), panics)
			if len(dry.order) < c.least || panics < len(dry.order)*9/10 {
				t.Error("those are too few")
			}
		})
	}
}

// count counts this process's descriptors, but for those that each Service keeps
// in reserve, and its goroutines.
func count(t *testing.T) (fds, routines int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); to != os.DevNull {
			fds++
		}
	}
	return fds, runtime.NumGoroutine()
}
