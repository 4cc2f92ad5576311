package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/containerd/containerd/api/events"
	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/outbox"
	"github.com/larkshim/lark/internal/taskapi"
)

// The test binary is the shim, when its environment says so: a real process with a
// real socket, with a task service of the test's own.
const actAsShim = "LARK_TEST_SHIM"

func TestMain(m *testing.M) {
	if os.Getenv(actAsShim) != "" {
		joinSupervisor()
		os.Exit(Main(App{Version: "v1", Revision: "r1", NewService: newFake}))
	}
	os.Exit(m.Run())
}

// fake is a task service that does what its tests need.
type fake struct {
	task.TTRPCTaskService
	serving Serving
}

func newFake(_ context.Context, s Serving) (Service, error) {
	if os.Getenv("LARK_TEST_BROKEN") != "" {
		return Service{}, errors.New("the service cannot be made")
	}
	return Service{Task: &fake{serving: s}, Close: func() error {
		s.Outbox.Append(outbox.Event{Kind: outbox.Delete, Topic: "/tasks/closed", Message: &api.TaskDelete{ContainerID: s.ID.String()}, Container: s.ID.String()})
		return nil
	}}, nil
}

func (f *fake) Connect(context.Context, *task.ConnectRequest) (*task.ConnectResponse, error) {
	return &task.ConnectResponse{ShimPid: uint32(os.Getpid()), Version: f.serving.Bundle}, nil
}

func (f *fake) Wait(ctx context.Context, _ *task.WaitRequest) (*task.WaitResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *fake) Start(_ context.Context, r *task.StartRequest) (*task.StartResponse, error) {
	panic("a bug in " + r.ID)
}

func (f *fake) Shutdown(context.Context, *task.ShutdownRequest) (*emptypb.Empty, error) {
	f.serving.Outbox.Append(outbox.Event{Kind: outbox.Exit, Topic: "/tasks/exit", Message: &api.TaskExit{ContainerID: f.serving.ID.String()}, Container: f.serving.ID.String()})
	f.serving.Shutdown()
	return &emptypb.Empty{}, nil
}

// daemon is containerd's side.
type daemon struct {
	t       testing.TB
	dir     string // of its sockets, and of the bundles
	grpc    string
	env     []string
	plainly bool // do not set MAX_SHIM_VERSION

	mu     sync.Mutex
	topics []string
}

func (d *daemon) Forward(_ context.Context, r *events.ForwardRequest) (*emptypb.Empty, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.topics = append(d.topics, r.Envelope.Topic)
	return &emptypb.Empty{}, nil
}

func newDaemon(t testing.TB) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "lark-b")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, dir: dir, grpc: filepath.Join(dir, "c.sock")}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", d.grpc+".ttrpc")
	if err != nil {
		t.Fatal(err)
	}
	srv, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	events.RegisterTTRPCEventsService(srv, d)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(context.Background(), l) }()
	t.Cleanup(func() { srv.Close(); <-ended })
	return d
}

func (d *daemon) got() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.topics, " ")
}

// sockets is a short directory for BootstrapParams.
func (d *daemon) sockets() string { return filepath.Join(d.dir, "s") }

// container makes a bundle with a log FIFO, and reads that.
func (d *daemon) container(id string, annotations ...string) *container {
	d.t.Helper()
	c := &container{daemon: d, id: id, bundle: filepath.Join(d.dir, id)}
	spec := "{}"
	if len(annotations) > 0 {
		spec = fmt.Sprintf(`{"annotations":{%q:%q}}`, annotations[0], annotations[1])
	}
	if err := errors.Join(os.Mkdir(c.bundle, 0o711), os.WriteFile(filepath.Join(c.bundle, "config.json"), []byte(spec), 0o600),
		unix.Mkfifo(filepath.Join(c.bundle, "log"), 0o600)); err != nil {
		d.t.Fatal(err)
	}
	return c
}

type container struct {
	*daemon
	id, bundle string
}

// run runs a command of the shim and returns both outputs together, as containerd
// does for start.
func (c *container) run(stdin []byte, args ...string) (string, error) {
	cmd := c.command(args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *container) command(args ...string) *exec.Cmd {
	args = append([]string{"-namespace", "ns", "-address", c.grpc, "-publish-binary", "/usr/bin/containerd", "-id", c.id}, args...)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "containerd-shim-lark-v2"
	cmd.Dir = c.bundle
	cmd.Env = append(os.Environ(), actAsShim+"=1", "TTRPC_ADDRESS="+c.grpc+".ttrpc", "GRPC_ADDRESS="+c.grpc, "NAMESPACE=ns", "GOMAXPROCS=2")
	if !c.plainly {
		cmd.Env = append(cmd.Env, "MAX_SHIM_VERSION=2")
	}
	cmd.Env = append(cmd.Env, c.env...)
	return cmd
}

// params is the input of containerd 2.3 and later.
func (c *container) params() []byte {
	dir := c.sockets()
	data, err := proto.Marshal(&bootapi.BootstrapParams{InstanceID: c.id, Namespace: "ns", ContainerdGrpcAddress: c.grpc,
		ContainerdTtrpcAddress: c.grpc + ".ttrpc", SocketDir: &dir})
	if err != nil {
		c.t.Fatal(err)
	}
	return data
}

// start runs start, and sees to the end of what it started.
func (c *container) start(stdin []byte) string {
	c.t.Helper()
	out, err := c.run(stdin, "start")
	if err != nil {
		c.t.Fatalf("start of %s: %v: %s", c.id, err, out)
	}
	return out
}

// running is a client of a shim that runs.
type running struct {
	*ttrpc.Client
	t    testing.TB
	path string
	pid  int
}

// connect finds the shim at a socket. It is killed at the end of the test, if it is
// still there.
func connect(t testing.TB, path string) *running {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Client: ttrpc.NewClient(conn), t: t, path: path}
	t.Cleanup(func() { r.Close() })
	var resp task.ConnectResponse
	if err := r.Call(t.Context(), taskapi.V2, "Connect", &task.ConnectRequest{ID: "c"}, &resp); err != nil {
		t.Fatal(err)
	}
	r.pid = int(resp.ShimPid)
	fd, err := unix.PidfdOpen(r.pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		unix.Close(fd)
		_ = os.Remove(path)
	})
	return r
}

// ended waits for the process's end.
func (r *running) ended() {
	r.t.Helper()
	fd, err := unix.PidfdOpen(r.pid, 0)
	if err != nil {
		return // already
	}
	defer unix.Close(fd)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000); n != 1 {
		r.t.Fatalf("the shim is still there (%v)", err)
	}
}

func (r *running) shutdown() {
	r.t.Helper()
	if err := r.Call(r.t.Context(), taskapi.V3, "Shutdown", &task.ShutdownRequest{ID: "c"}, &emptypb.Empty{}); err != nil {
		r.t.Errorf("Shutdown: %v", err)
	}
	r.ended()
}

func (r *running) signal(s unix.Signal) {
	r.t.Helper()
	if err := unix.Kill(r.pid, s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) alive() bool {
	return r.Call(r.t.Context(), taskapi.V2, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}) == nil
}

// reader reads a FIFO until want is seen.
func readUntil(t testing.TB, f *os.File, want string) string {
	t.Helper()
	var got strings.Builder
	if err := f.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for !strings.Contains(got.String(), want) {
		n, err := f.Read(buf)
		got.Write(buf[:n])
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("log without %q: %v\n%s", want, err, got.String())
		}
	}
	return got.String()
}

// openReader opens the log as containerd does.
func (c *container) openReader() *os.File {
	c.t.Helper()
	f, err := os.OpenFile(filepath.Join(c.bundle, "log"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

func procField(t testing.TB, pid int, file, key string) string {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
