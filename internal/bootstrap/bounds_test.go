package bootstrap

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/taskapi"
)

// padded is a connection that makes the client's next message longer, by bytes that
// the client never holds: the client itself refuses to send too long a message.
type padded struct {
	net.Conn
	pad atomic.Int64
}

func (c *padded) Write(p []byte) (int, error) {
	pad := c.pad.Swap(0)
	if pad == 0 {
		return c.Conn.Write(p)
	}
	// A short message comes in one write.
	long := append([]byte{}, p...)
	binary.BigEndian.PutUint32(long, binary.BigEndian.Uint32(long)+uint32(pad))
	if _, err := c.Conn.Write(long); err != nil {
		return 0, err
	}
	_, err := io.CopyN(c.Conn, zeros{}, pad)
	return len(p), err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// bound is one of the server's bounds.
type bound struct {
	name string
	// exceed brings the server to the bound, and returns what a client of the
	// connection is told that asks for more.
	exceed func(t *testing.T, q *quick, conn *padded, c *ttrpc.Client) error
	is     func(error) bool
}

func call(ctx context.Context, c *ttrpc.Client, method string, req, resp proto.Message) error {
	return errgrpc.ToNative(c.Call(ctx, taskapi.V3, method, req, resp))
}

func fill(t *testing.T, q *quick, c *ttrpc.Client, method string, req, resp proto.Message, n int) {
	t.Helper()
	for range n {
		go func() { _ = call(context.WithoutCancel(t.Context()), c, method, req, proto.Clone(resp)) }()
	}
	for range n {
		<-q.entered
	}
}

func tooLong(pad int64) func(*testing.T, *quick, *padded, *ttrpc.Client) error {
	return func(t *testing.T, _ *quick, conn *padded, c *ttrpc.Client) error {
		conn.pad.Store(pad)
		return call(t.Context(), c, "Exec", &task.ExecProcessRequest{ID: "c"}, &emptypb.Empty{})
	}
}

var bounds = []bound{
	{"a request just above maxFrame", tooLong(maxFrame), errdefs.IsResourceExhausted},
	{"a request of 6 MB", tooLong(6e6), errdefs.IsResourceExhausted},
	{"a request of 64 MiB", tooLong(64 << 20), errdefs.IsResourceExhausted},
	{"a stream", func(t *testing.T, _ *quick, _ *padded, c *ttrpc.Client) error {
		s, err := c.NewStream(t.Context(), &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}, taskapi.V3, "Connect", nil)
		if err != nil {
			return err
		}
		for range 3 {
			if err := s.SendMsg(&task.ConnectRequest{}); err != nil && !errors.Is(err, io.EOF) {
				t.Logf("SendMsg: %v", err) // the refusal may have come before
			}
		}
		return errgrpc.ToNative(s.RecvMsg(&task.ConnectResponse{}))
	}, errdefs.IsNotImplemented},
	{"a service whose name is as long as a request", func(t *testing.T, _ *quick, _ *padded, c *ttrpc.Client) error {
		return errgrpc.ToNative(c.Call(t.Context(), strings.Repeat("x", maxFrame-128), "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}))
	}, errdefs.IsNotImplemented},
	{"maxWork calls", func(t *testing.T, q *quick, _ *padded, c *ttrpc.Client) error {
		fill(t, q, c, "Exec", &task.ExecProcessRequest{}, &emptypb.Empty{}, maxWork)
		return call(t.Context(), c, "Create", &task.CreateTaskRequest{}, &task.CreateTaskResponse{})
	}, errdefs.IsResourceExhausted},
	{"maxConcurrent calls", func(t *testing.T, q *quick, _ *padded, c *ttrpc.Client) error {
		fill(t, q, c, "Wait", &task.WaitRequest{}, &task.WaitResponse{}, maxConcurrent)
		return call(t.Context(), c, "Wait", &task.WaitRequest{}, &task.WaitResponse{})
	}, errdefs.IsResourceExhausted},
	{"an answer above maxAnswer", func(t *testing.T, _ *quick, _ *padded, c *ttrpc.Client) error {
		return call(t.Context(), c, "Pids", &task.PidsRequest{}, &task.PidsResponse{})
	}, errdefs.IsResourceExhausted},
	{"an error above maxMessage", func(t *testing.T, _ *quick, _ *padded, c *ttrpc.Client) error {
		return call(t.Context(), c, "State", &task.StateRequest{ID: strings.Repeat("x", maxFrame-128)}, &task.StateResponse{})
	}, errdefs.IsNotFound},
	{"another namespace, of 1 MiB", func(t *testing.T, _ *quick, _ *padded, c *ttrpc.Client) error {
		ctx := ttrpc.WithMetadata(t.Context(), ttrpc.MD{namespaceHeader: {strings.Repeat("n", 1<<20)}})
		return call(ctx, c, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{})
	}, errdefs.IsFailedPrecondition},
}

// F02: each bound of the server is an answer, with its class and on the connection that
// it is about, which goes on.
func TestF02BoundsAreAnswers(t *testing.T) {
	for _, b := range bounds {
		t.Run(b.name, func(t *testing.T) {
			q, _, path, log := serveQuick(t)
			raw, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			conn := &padded{Conn: raw}
			c := ttrpc.NewClient(conn)
			defer c.Close()
			defer close(q.release)
			if err := b.exceed(t, q, conn, c); !b.is(err) {
				t.Errorf("the answer is %.300v", err)
			}
			if err := call(t.Context(), c, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
				t.Errorf("the next call on the connection: %v", err)
			}
			if strings.Contains(log.String(), "connection ended") {
				t.Errorf("log: %s", log)
			}
		})
	}
}

// F02: the first connection above maxConns may look and end, not begin; one above
// maxExtra waits until another ends. None is closed.
func TestConnectionsAreBounded(t *testing.T) {
	q, s, path, log := serveQuick(t)
	close(q.release)
	exec := func(c *ttrpc.Client) error {
		return call(t.Context(), c, "Exec", &task.ExecProcessRequest{}, &emptypb.Empty{})
	}
	connect := func(c *ttrpc.Client) error {
		return call(t.Context(), c, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{})
	}
	all := make([]*ttrpc.Client, maxConns+maxExtra)
	for i := range all {
		all[i] = dialQuick(t, path)
		defer all[i].Close() // before the server is waited for
		if err := connect(all[i]); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if err := exec(all[i]); i < maxConns && err != nil || i >= maxConns && !errdefs.IsResourceExhausted(err) {
			t.Fatalf("Exec on connection %d: %v", i, err)
		}
	}
	waiting := dialQuick(t, path)
	defer waiting.Close()
	answer := make(chan error, 1)
	go func() { answer <- connect(waiting) }()
	last := all[len(all)-1]
	if err := connect(last); err != nil {
		t.Error(err)
	}
	select {
	case err := <-answer:
		t.Errorf("a connection above all bounds was served: %v", err)
	default:
	}
	all[0].Close()
	if err := <-answer; err != nil {
		t.Errorf("when another has ended: %v", err)
	}
	if err := exec(waiting); err != nil {
		t.Errorf("Exec on the connection that has the place: %v", err)
	}
	if err := exec(last); !errdefs.IsResourceExhausted(err) {
		t.Errorf("Exec on an old connection: %v", err)
	}
	all[1].Close()
	if !await(func() bool { return exec(last) == nil }, time.Minute) {
		t.Error("an old connection does not get a place that is free")
	}
	if n := strings.Count(log.String(), "too many"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.placed != maxConns || len(s.conns) != maxConns+maxExtra-1 {
		t.Errorf("%d connections, %d with a place", len(s.conns), s.placed)
	}
}
