package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	ttrpcevents "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/order/taskevents"
	"github.com/larkshim/lark/internal/outbox"
	"github.com/larkshim/lark/internal/spec"
)

// patience bounds every wait of these tests; only a fault comes near it.
const patience = time.Minute

// world is what the tests of this package share: there can be one owner of
// children in a process, and one root filesystem serves all.
type world struct {
	owner   *children.Owner
	cgroups *cgroup.Host
	rootfs  string
	dir     string
}

var shared world

func TestMain(m *testing.M) {
	fakeruntime.Main()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lark-task-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared = world{dir: dir, rootfs: filepath.Join(dir, "rootfs")}
	// Before there is an owner, whose sweep would take these children from os/exec.
	calibrated()
	owner := os.Getenv(noOwnerEnv) == ""
	os.Unsetenv(noOwnerEnv) // for this process alone
	if err = spec.Busybox(context.Background(), shared.rootfs); err == nil && owner {
		if shared.owner, err = children.NewOwner(slog.Default()); err == nil {
			shared.cgroups, err = cgroup.NewHost()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if shared.owner != nil {
		defer shared.owner.Close()
	}
	return m.Run()
}

// noOwnerEnv makes a test binary without an owner of children.
const noOwnerEnv = "LARK_TEST_WITHOUT_OWNER"

// withoutOwner runs a test that forks by os/exec in a process of its own, since an
// owner of children reaps what it does not know.
func withoutOwner(t *testing.T, fn func()) {
	t.Helper()
	if shared.owner == nil {
		fn()
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=30m")
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), noOwnerEnv+"=1")
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	p, err := shared.owner.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait(t.Context())
	text, readErr := os.ReadFile(out.Name())
	if err != nil || readErr != nil || exit.Status != 0 {
		t.Fatalf("status %d: %v\n%s", exit.Status, errors.Join(err, readErr), text)
	}
	t.Logf("%s", text)
}

// recorder is a containerd that takes every event and judges their order.
type recorder struct {
	mu      sync.Mutex
	checker *order.Checker
	events  []order.Event
	changed chan struct{} // closed and made anew at every event
}

func (r *recorder) Send(_ context.Context, req *ttrpcevents.ForwardRequest) error {
	e, err := taskevents.FromAny(req.Envelope.Event, req.Envelope.Timestamp)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checker.Observe(e)
	r.events = append(r.events, e)
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

func (r *recorder) Close() error { return nil }

// shim is a service with its outbox, as one shim has them.
type shim struct {
	*Service
	t        *testing.T
	events   *recorder
	outbox   *outbox.Outbox
	shutdown chan struct{}
	dir      string
	log      *logBuffer
}

// logBuffer keeps what was logged, to be shown if the test fails.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// clear forgets what is of no more interest.
func (l *logBuffer) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func newShim(t *testing.T) *shim {
	t.Helper()
	ns, err := bundle.ParseNamespace("lark-test")
	if err != nil {
		t.Fatal(err)
	}
	s := &shim{
		t: t, dir: t.TempDir(), shutdown: make(chan struct{}), log: &logBuffer{},
		events: &recorder{checker: order.New(), changed: make(chan struct{})},
	}
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.outbox = outbox.New(outbox.Config{Namespace: ns.String(), Transport: s.events, Log: log})
	s.Service = New(Config{
		Namespace: ns, Owner: shared.owner, Cgroups: shared.cgroups, Outbox: s.outbox, Log: log,
		Shutdown: func() { close(s.shutdown) },
	})
	t.Cleanup(s.finish)
	return s
}

// finish holds the whole stream of events against the promises.
func (s *shim) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.outbox.Drain(ctx); err != nil {
		s.t.Errorf("drain: %v", err)
	}
	s.outbox.Close()
	for _, v := range s.events.checker.Finish() {
		s.t.Errorf("order: %v", v)
	}
	if s.t.Failed() {
		s.t.Logf("events:\n%v\nlog:\n%s", s.events.events, s.log)
	}
	if strings.Contains(s.log.String(), "rules were told") {
		s.t.Errorf("the contract with the rules was broken:\n%s", s.log)
	}
}

// eventually waits until an event is there that want accepts.
func (s *shim) eventually(what string, want func(order.Event) bool) order.Event {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		s.events.mu.Lock()
		for _, e := range s.events.events {
			if want(e) {
				s.events.mu.Unlock()
				return e
			}
		}
		changed := s.events.changed
		s.events.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			s.t.Fatalf("%s: no such event\n%s", what, s.log)
		}
	}
}

// kinds are the kinds of the events of one container so far.
func (s *shim) kinds(container string) (kinds []order.Kind) {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	for _, e := range s.events.events {
		if e.Container == container {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

// box is one container in a bundle of its own.
type box struct {
	*shim
	id      string
	bundle  string
	request *task.CreateTaskRequest
}

// serial makes ids that no other test of this process has.
var serial struct {
	sync.Mutex
	n int
}

func uniqueID() string {
	serial.Lock()
	defer serial.Unlock()
	serial.n++
	return fmt.Sprintf("lark-task-%d-%d", os.Getpid(), serial.n)
}

// container prepares a bundle; change may change its spec.
func (s *shim) container(change func(*specs.Spec), args ...string) *box {
	s.t.Helper()
	b := &box{shim: s, id: uniqueID()}
	b.bundle = filepath.Join(s.dir, b.id)
	if err := os.Mkdir(b.bundle, 0o700); err != nil {
		s.t.Fatal(err)
	}
	c := spec.Default(spec.Options{Rootfs: shared.rootfs, Args: args, Cgroup: "/lark-test/" + b.id})
	if change != nil {
		change(c)
	}
	data, err := json.Marshal(c)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.bundle, "config.json"), data, 0o600); err != nil {
		s.t.Fatal(err)
	}
	b.request = &task.CreateTaskRequest{ID: b.id, Bundle: b.bundle}
	s.t.Cleanup(b.remove)
	return b
}

// hostPID makes the container share the host's pid namespace.
func hostPID(s *specs.Spec) {
	var kept []specs.LinuxNamespace
	for _, ns := range s.Linux.Namespaces {
		if ns.Type != specs.PIDNamespace {
			kept = append(kept, ns)
		}
	}
	s.Linux.Namespaces = kept
}

// remove ends what a test has left of the container.
func (b *box) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := b.State(ctx, &task.StateRequest{ID: b.id}); err != nil {
		return
	}
	_, _ = b.Kill(ctx, &task.KillRequest{ID: b.id, Signal: 9})
	_, _ = b.Wait(ctx, &task.WaitRequest{ID: b.id})
	// Without its bundle a container is not deleted (F01).
	if err := os.MkdirAll(b.bundle, 0o700); err != nil {
		b.t.Error(err)
	}
	if _, err := b.Delete(ctx, &task.DeleteRequest{ID: b.id}); err != nil {
		b.t.Errorf("cleaning up %s: %v", b.id, err)
	}
}

func (b *box) create() uint32 {
	b.t.Helper()
	r, err := b.Create(b.t.Context(), b.request)
	if err != nil {
		b.t.Fatalf("create: %v\n%s", err, b.log)
	}
	return r.Pid
}

func (b *box) start(exec string) uint32 {
	b.t.Helper()
	r, err := b.Start(b.t.Context(), &task.StartRequest{ID: b.id, ExecID: exec})
	if err != nil {
		b.t.Fatalf("start %q: %v\n%s", exec, err, b.log)
	}
	return r.Pid
}

func (b *box) wait(exec string) uint32 {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	r, err := b.Wait(ctx, &task.WaitRequest{ID: b.id, ExecID: exec})
	if err != nil {
		b.t.Fatalf("wait %q: %v\n%s", exec, err, b.log)
	}
	return r.ExitStatus
}

func (b *box) kill(exec string, signal uint32) error {
	_, err := b.Kill(b.t.Context(), &task.KillRequest{ID: b.id, ExecID: exec, Signal: signal})
	return err
}

func (b *box) del(exec string) (*task.DeleteResponse, error) {
	return b.Delete(b.t.Context(), &task.DeleteRequest{ID: b.id, ExecID: exec})
}

func (b *box) mustDelete(exec string) *task.DeleteResponse {
	b.t.Helper()
	r, err := b.del(exec)
	if err != nil {
		b.t.Fatalf("delete %q: %v\n%s", exec, err, b.log)
	}
	return r
}

// addExec adds an exec of args.
func (b *box) addExec(id string, args ...string) error {
	data, err := json.Marshal(&specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin:/usr/bin:/sbin"}})
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = b.Exec(b.t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: id, Spec: &anypb.Any{Value: data}})
	return err
}

func (b *box) exec(id string, args ...string) uint32 {
	b.t.Helper()
	if err := b.addExec(id, args...); err != nil {
		b.t.Fatalf("exec %q: %v", id, err)
	}
	return b.start(id)
}

// is waits for the container's event of that kind.
func (b *box) is(kind order.Kind, exec string) order.Event {
	b.t.Helper()
	return b.eventually(fmt.Sprintf("%v of %s %q", kind, b.id, exec), func(e order.Event) bool {
		return e.Container == b.id && e.Kind == kind && e.Exec == exec
	})
}

// output makes a fifo and returns what will be written to it until its end.
func (s *shim) output(name string) (path string, content func() string) {
	s.t.Helper()
	path = filepath.Join(s.dir, name)
	if err := mkfifo(path); err != nil {
		s.t.Fatal(err)
	}
	got := make(chan string, 1)
	f, err := os.OpenFile(path, os.O_RDONLY|oNonblock, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	return path, func() string {
		go func() {
			b, _ := io.ReadAll(f)
			got <- string(b)
		}()
		select {
		case b := <-got:
			f.Close()
			return b
		case <-time.After(patience):
			s.t.Fatal("no end of the output")
			return ""
		}
	}
}
