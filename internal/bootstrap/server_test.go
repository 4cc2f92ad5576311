package bootstrap

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/taskapi"
)

// quick is a task service without a process.
type quick struct {
	task.TTRPCTaskService
	release chan struct{} // Wait ends when it is closed
	entered chan struct{} // one token per Wait
}

func (q *quick) State(_ context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	return nil, fmt.Errorf("container %q: %w", r.ID, errdefs.ErrNotFound)
}

func (q *quick) Connect(context.Context, *task.ConnectRequest) (*task.ConnectResponse, error) {
	return &task.ConnectResponse{}, nil
}

func (q *quick) Start(context.Context, *task.StartRequest) (*task.StartResponse, error) {
	panic("a bug")
}

func (q *quick) Exec(context.Context, *task.ExecProcessRequest) (*emptypb.Empty, error) {
	q.entered <- struct{}{}
	<-q.release
	return &emptypb.Empty{}, nil
}

func (q *quick) Wait(context.Context, *task.WaitRequest) (*task.WaitResponse, error) {
	q.entered <- struct{}{}
	<-q.release
	return &task.WaitResponse{}, nil
}

func (q *quick) Pids(context.Context, *task.PidsRequest) (*task.PidsResponse, error) {
	many := make([]*tasktypes.ProcessInfo, maxAnswer/4)
	for i := range many {
		many[i] = &tasktypes.ProcessInfo{Pid: 1 << 20}
	}
	return &task.PidsResponse{Processes: many}, nil
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func serveQuick(t testing.TB) (*quick, *server, string, *syncBuffer) {
	t.Helper()
	return serveQuickAt(t, filepath.Join(t.TempDir(), "s"))
}

func serveQuickAt(t testing.TB, path string) (*quick, *server, string, *syncBuffer) {
	t.Helper()
	q := &quick{release: make(chan struct{}), entered: make(chan struct{}, 2*maxWork)}
	log := &syncBuffer{}
	ns, err := bundle.ParseNamespace("ns")
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(q, ns, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.serve(context.Background(), l) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		s.close()
	})
	return q, s, path, log
}

func dialQuick(t testing.TB, path string) *ttrpc.Client {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	t.Cleanup(func() { c.Close() })
	return c
}

// The service has two names, for containerd 1.6 and 1.7 and for 2.x.
func TestBothNamesAnswer(t *testing.T) {
	_, _, path, _ := serveQuick(t)
	c := dialQuick(t, path)
	for _, name := range []string{taskapi.V2, taskapi.V3} {
		if err := c.Call(t.Context(), name, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
			t.Errorf("%s: Connect: %v", name, err)
		}
		err := c.Call(t.Context(), name, "State", &task.StateRequest{ID: "c"}, &task.StateResponse{})
		if err = errgrpc.ToNative(err); !errdefs.IsNotFound(err) {
			t.Errorf("%s: State: %v", name, err)
		}
	}
	if err := errgrpc.ToNative(c.Call(t.Context(), "containerd.task.v9.Task", "Connect", &task.ConnectRequest{}, &task.ConnectResponse{})); !errdefs.IsNotImplemented(err) {
		t.Errorf("another name: %v", err)
	}
}

func TestErrorsAndPanicsAreAnswers(t *testing.T) {
	_, _, path, log := serveQuick(t)
	c := dialQuick(t, path)
	err := c.Call(t.Context(), taskapi.V2, "State", &task.StateRequest{ID: "c"}, &task.StateResponse{})
	if err = errgrpc.ToNative(err); !errdefs.IsNotFound(err) {
		t.Errorf("State: %v", err)
	}
	err = c.Call(t.Context(), taskapi.V2, "Start", &task.StartRequest{}, &task.StartResponse{})
	if err = errgrpc.ToNative(err); !errdefs.IsInternal(err) {
		t.Errorf("Start: %v", err)
	}
	if !strings.Contains(log.String(), "panic in a handler") || !strings.Contains(log.String(), "quick).Start") {
		t.Errorf("the stack is not in the log:\n%s", log)
	}
	if err := c.Call(t.Context(), taskapi.V3, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
		t.Errorf("after the panic: %v", err)
	}
	err = c.Call(t.Context(), taskapi.V3, "State", &task.KillRequest{ID: "\xff"}, &task.StateResponse{})
	if err == nil { // not valid UTF-8: it cannot even be sent
		t.Error("an invalid request was taken")
	}
}

// Row 64: a flood of starts is refused at a bound, and State and Kill go on.
func TestRow64ConcurrentCallsAreBounded(t *testing.T) {
	q, _, path, _ := serveQuick(t)
	c := dialQuick(t, path)
	var wg sync.WaitGroup
	refused := make(chan error, maxWork+100)
	for range maxWork + 100 {
		wg.Go(func() {
			if err := c.Call(t.Context(), taskapi.V2, "Exec", &task.ExecProcessRequest{}, &emptypb.Empty{}); err != nil {
				refused <- errgrpc.ToNative(err)
			}
		})
	}
	for range maxWork {
		<-q.entered
	}
	for range 100 {
		if err := <-refused; !errdefs.IsResourceExhausted(err) {
			t.Fatalf("refused with %v", err)
		}
	}
	if err := c.Call(t.Context(), taskapi.V2, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
		t.Errorf("Connect meanwhile: %v", err)
	}
	close(q.release)
	wg.Wait()
	if err := c.Call(t.Context(), taskapi.V2, "Exec", &task.ExecProcessRequest{}, &emptypb.Empty{}); err != nil {
		t.Errorf("Exec afterwards: %v", err)
	}
}

func TestIdleAndClosing(t *testing.T) {
	q, s, path, _ := serveQuick(t)
	c := dialQuick(t, path)
	if !s.idle() {
		t.Error("not idle at the beginning")
	}
	done := make(chan error, 1)
	go func() {
		done <- c.Call(t.Context(), taskapi.V2, "Exec", &task.ExecProcessRequest{}, &emptypb.Empty{})
	}()
	<-q.entered
	if s.idle() {
		t.Error("idle during a call")
	}
	close(q.release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !await(s.idle, time.Minute) {
		t.Error("not idle after the answer")
	}
	s.closing.Store(true)
	err := c.Call(t.Context(), taskapi.V2, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{})
	if err = errgrpc.ToNative(err); !errdefs.IsUnavailable(err) {
		t.Errorf("a call while closing: %v", err)
	}
}

// The header of a ttrpc message: length and stream id, big endian, type and flags.
const (
	frameHeader    = 10
	frameTypeByte  = 8
	frameFlagsByte = 9

	typeRequest  = 1
	typeResponse = 2
	typeData     = 3
)

func frame(length, stream uint32, typ byte, payload []byte) []byte {
	b := make([]byte, frameHeader, frameHeader+len(payload))
	binary.BigEndian.PutUint32(b, length)
	binary.BigEndian.PutUint32(b[4:], stream)
	b[frameTypeByte] = typ
	return append(b, payload...)
}

func callFrame(t testing.TB, stream uint32) []byte {
	t.Helper()
	payload, err := proto.Marshal(&ttrpc.Request{Service: taskapi.V2, Method: "Connect"})
	if err != nil {
		t.Fatal(err)
	}
	return frame(uint32(len(payload)), stream, typeRequest, payload)
}

// Row 64: frames that no task client sends are answered, and other connections do not
// notice.
func TestRow64MaliciousFrames(t *testing.T) {
	_, _, path, _ := serveQuick(t)
	good := callFrame(t, 1)
	for name, c := range map[string]struct {
		send     []byte
		answered bool // else there is nothing to answer yet
	}{
		"a call":                    {good, true},
		"two calls at once":         {append(append([]byte{}, good...), callFrame(t, 3)...), true},
		"4 GiB claimed":             {frame(0xffffffff, 1, typeRequest, nil), false},
		"one byte too long":         {frame(maxFrame+1, 1, typeRequest, nil), false},
		"unknown type":              {frame(0, 1, 77, nil), true},
		"data for no stream":        {frame(0, 1, typeData, nil), true},
		"data for a call":           {append(append([]byte{}, good...), frame(0, 1, typeData, nil)...), true},
		"a response":                {frame(0, 1, typeResponse, nil), true},
		"even stream":               {callFrame(t, 2), true},
		"the same stream again":     {append(append([]byte{}, good...), good...), true},
		"garbage for a request":     {frame(4, 1, typeRequest, []byte{0xff, 0xff, 0xff, 0xff}), true},
		"nothing for a request":     {frame(0, 1, typeRequest, nil), true},
		"text":                      {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), false},
		"unknown flags":             {func() []byte { f := callFrame(t, 1); f[frameFlagsByte] = 0xf0; return f }(), true},
		"unknown service":           {func() []byte { return bytes.ReplaceAll(good, []byte("task.v2"), []byte("task.v9")) }(), true},
		"truncated header, then no": {[]byte{0, 0, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(c.send); err != nil {
				t.Fatal(err)
			}
			if c.answered {
				if _, err := io.ReadFull(conn, make([]byte, frameHeader)); err != nil {
					t.Errorf("no answer: %v", err)
				}
			}
			other := dialQuick(t, path)
			if err := other.Call(t.Context(), taskapi.V2, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
				t.Errorf("another connection: %v", err)
			}
		})
	}
}

func BenchmarkCall(b *testing.B) {
	_, _, path, _ := serveQuick(b)
	c := dialQuick(b, path)
	for b.Loop() {
		if err := c.Call(b.Context(), taskapi.V2, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
			b.Fatal(err)
		}
	}
}
