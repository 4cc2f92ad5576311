package task

// What the tests with a scripted runtime share: package fakeruntime plays the OCI
// runtime, and does at a given point what the test wants.

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/calibrate"
	fake "github.com/larkshim/lark/internal/fakeruntime"
)

// shortDeadline is what a hung runtime call is given in these tests: long enough for
// a call that does not hang, with the race detector, and for what is tried while it
// hangs. calibrated stretches it on a slow machine.
var shortDeadline = 4 * time.Second

// soon is how long a call may take that waits for no runtime call: less than
// shortDeadline, far more than it takes.
var soon = shortDeadline / 2

// calibrated stretches the times above. It starts processes, and comes before there
// is an owner.
func calibrated() {
	shortDeadline = calibrate.Stretch(shortDeadline)
	soon = shortDeadline / 2
}

// scripted is a container whose runtime follows a script.
func (s *shim) scripted(change func(*specs.Spec), p fake.Profile, args ...string) (*box, *fake.Control) {
	s.t.Helper()
	p.Cgroup = true
	binary, ctl := fake.Install(s.t, p)
	b := s.container(change, args...)
	b.use(binary, ctl.Root())
	return b, ctl
}

// beside is a further container with the runtime of another one.
func (b *box) beside(ctl *fake.Control, args ...string) *box {
	b.t.Helper()
	o := &options.Options{}
	if err := proto.Unmarshal(b.request.Options.Value, o); err != nil {
		b.t.Fatal(err)
	}
	n := b.shim.container(nil, args...)
	n.use(o.BinaryName, ctl.Root())
	return n
}

func (b *box) use(binary, root string) {
	b.t.Helper()
	o := &options.Options{BinaryName: binary, Root: root}
	value, err := proto.Marshal(o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.request.Options = &anypb.Any{TypeUrl: string(o.ProtoReflect().Descriptor().FullName()), Value: value}
}

// change is the profile with its cgroup, for Control.Become.
func change(p fake.Profile) fake.Profile { p.Cgroup = true; return p }

// tried is a call under way.
type tried[T any] struct {
	answer T
	err    error
	took   time.Duration
}

// begin makes a call in the background.
func begin[T any](call func() (T, error)) <-chan tried[T] {
	c := make(chan tried[T], 1)
	began := time.Now()
	go func() {
		v, err := call()
		c <- tried[T]{v, err, time.Since(began)}
	}()
	return c
}

func ended[T any](t *testing.T, what string, c <-chan tried[T]) tried[T] {
	t.Helper()
	select {
	case r := <-c:
		return r
	case <-time.After(patience + shortDeadline):
		t.Fatalf("%s did not end", what)
		panic("not reached")
	}
}

func pending[T any](t *testing.T, what string, c <-chan tried[T]) {
	t.Helper()
	select {
	case r := <-c:
		t.Fatalf("%s ended while the runtime was held: %v, %v", what, r.answer, r.err)
	default:
	}
}

func (b *box) beginCreate() <-chan tried[*task.CreateTaskResponse] {
	return begin(func() (*task.CreateTaskResponse, error) { return b.Create(context.Background(), b.request) })
}

func (b *box) beginStart(exec string) <-chan tried[*task.StartResponse] {
	return begin(func() (*task.StartResponse, error) {
		return b.Start(context.Background(), &task.StartRequest{ID: b.id, ExecID: exec})
	})
}

func (b *box) beginWait(exec string) <-chan tried[*task.WaitResponse] {
	return begin(func() (*task.WaitResponse, error) {
		return b.Wait(context.Background(), &task.WaitRequest{ID: b.id, ExecID: exec})
	})
}

// within fails the test if a call that waits for nothing took long.
func within(t *testing.T, what string, call func() error) {
	t.Helper()
	c := begin(func() (struct{}, error) { return struct{}{}, call() })
	select {
	case r := <-c:
		if r.err != nil {
			t.Errorf("%s: %v", what, r.err)
		}
	case <-time.After(soon):
		t.Errorf("%s was not answered within %v", what, soon)
	}
}

// answers asks all that must be answered whatever the runtime does (W13, row 22).
func (b *box) answers(execs ...string) {
	b.t.Helper()
	ctx := context.Background()
	within(b.t, "State", func() error { _, err := b.State(ctx, &task.StateRequest{ID: b.id}); return err })
	within(b.t, "Pids", func() error { _, err := b.Pids(ctx, &task.PidsRequest{ID: b.id}); return err })
	within(b.t, "Connect", func() error { _, err := b.Connect(ctx, &task.ConnectRequest{ID: b.id}); return err })
	within(b.t, "Stats", func() error { _, err := b.Stats(ctx, &task.StatsRequest{ID: b.id}); return err })
	for _, e := range execs {
		within(b.t, "State of "+e, func() error { _, err := b.State(ctx, &task.StateRequest{ID: b.id, ExecID: e}); return err })
	}
	within(b.t, "a Wait that is given up", func() error {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		_, _ = b.Wait(ctx, &task.WaitRequest{ID: b.id})
		return nil
	})
}

// goneWithin waits until nothing that the runtime has made lives any more.
func gone(t *testing.T, ctl *fake.Control) {
	t.Helper()
	until(t, "processes of the runtime are left", func() bool { return len(ctl.Processes(t)) == 0 })
}

// until polls what no event tells of: processes that are not ours, files, mounts.
func until(t *testing.T, complaint string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Error(complaint)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leavesNothing says that a container that failed is gone with all that was made for
// it: its id can be used again, and is.
func (b *box) leavesNothing(ctl *fake.Control) {
	b.t.Helper()
	gone(b.t, ctl)
	if _, err := b.find2(); err == nil {
		b.t.Error("the container is still known")
	}
	if n := b.kinds(b.id); len(n) != 0 {
		b.t.Errorf("events %v of a container that was never made (#6429)", n)
	}
	for _, dir := range cgroupsOf(b.id) {
		if _, err := os.Stat(dir); err == nil {
			b.t.Errorf("%s is left", dir)
		}
	}
	state := filepath.Join(ctl.Root(), "lark-test", b.id)
	if _, err := os.Stat(state); err == nil {
		b.t.Errorf("the runtime's %s is left", state)
	}
}

func (b *box) find2() (*task.StateResponse, error) {
	return b.State(context.Background(), &task.StateRequest{ID: b.id})
}

// cgroupsOf are the directories that the cgroup of a test's container may have.
func cgroupsOf(id string) []string {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/lark-test/" + id)
	more, _ := filepath.Glob("/sys/fs/cgroup/lark-test/" + id)
	return append(dirs, more...)
}

// stranger starts a process that is this program's child and no container's.
func stranger(t *testing.T) int {
	t.Helper()
	p, err := shared.owner.Start(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Signal(sigkill)
		_, _ = p.Wait(context.Background())
	})
	return p.Pid()
}

// livesStill says that a process is there and no zombie.
func livesStill(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(after, "Z")
}
