package outbox

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	api "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is containerd's side over a real socket.
type server struct {
	t    testing.TB
	path string

	mu     sync.Mutex
	topics []string
	seen   chan string // one token per event taken
	answer func(ctx context.Context, n int) error
}

func newServer(t testing.TB) *server {
	return &server{t: t, path: filepath.Join(t.TempDir(), "c.sock.ttrpc"), seen: make(chan string, 1<<16)}
}

// life is one run of containerd; nothing of it happens after its end.
type life struct {
	*server
	over bool
}

func (s *life) Forward(ctx context.Context, r *events.ForwardRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return nil, errgrpc.ToGRPC(errdefs.ErrUnavailable)
	}
	s.topics = append(s.topics, r.Envelope.Topic)
	n, answer := len(s.topics), s.answer
	s.mu.Unlock()
	s.seen <- r.Envelope.Topic
	if answer != nil {
		if err := answer(ctx, n); err != nil {
			return nil, errgrpc.ToGRPC(err)
		}
	}
	return &emptypb.Empty{}, nil
}

// serve starts containerd; the function it returns kills it.
func (s *server) serve() (stop func()) {
	s.t.Helper()
	_ = os.Remove(s.path)
	l, err := net.Listen("unix", s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	srv, err := ttrpc.NewServer()
	if err != nil {
		s.t.Fatal(err)
	}
	run := &life{server: s}
	events.RegisterTTRPCEventsService(srv, run)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	conns := &connections{Listener: l}
	go func() {
		defer close(ended)
		_ = srv.Serve(ctx, conns)
	}()
	return func() {
		s.mu.Lock()
		run.over = true
		s.mu.Unlock()
		cancel()
		_ = srv.Close()
		<-ended
		conns.close()
	}
}

// connections closes them all at once, as the kernel does for a dead process.
type connections struct {
	net.Listener
	mu  sync.Mutex
	all []net.Conn
}

func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.all = append(c.all, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.all {
		_ = conn.Close()
	}
}

func (s *server) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.topics...)
}

func drain(t testing.TB, o *Outbox) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := o.Drain(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestTransportDelivers(t *testing.T) {
	s := newServer(t)
	defer s.serve()()
	o := New(Config{Namespace: "ns", Transport: Dial("unix://" + s.path)})
	defer o.Close()
	for i := range 2000 {
		o.Append(exit(i))
	}
	drain(t, o)
	wantInOrder(t, s.got(), 2000)
}

// containerd is restarted twice, once while the outbox rests and once while it is
// sending; what was in flight may arrive twice, next to itself.
func TestTransportSurvivesRestarts(t *testing.T) {
	s := newServer(t)
	o := New(Config{Namespace: "ns", Transport: Dial(s.path)})
	defer o.Close()
	o.Append(exit(0)) // before there is a socket at all

	stop := s.serve()
	drain(t, o)
	stop()
	stop = s.serve()
	o.Append(exit(1))
	drain(t, o)

	for i := 2; i < 3000; i++ {
		o.Append(exit(i))
	}
	for range 100 {
		<-s.seen
	}
	stop()
	defer s.serve()()
	drain(t, o)

	var once []string
	repeated := 0
	for i, topic := range s.got() {
		if i > 0 && s.got()[i-1] == topic {
			repeated++
			continue
		}
		once = append(once, topic)
	}
	wantInOrder(t, once, 3000)
	if repeated > 1 {
		t.Errorf("%d events came twice", repeated)
	}
}

// A server that accepts, takes the event and never answers: the attempt ends with
// its deadline, as silence, and the connection is not used again.
func TestTransportDeadline(t *testing.T) {
	s := newServer(t)
	release := make(chan struct{})
	s.answer = func(ctx context.Context, n int) error {
		if n == 1 {
			<-release
		}
		return nil
	}
	stop := s.serve()
	defer stop()
	defer close(release)
	tr := Dial(s.path).(*ttrpcTransport)
	defer tr.Close()
	// Connect first: a deadline that comes before the connection says nothing of the
	// other end.
	if err := tr.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req := &events.ForwardRequest{}
	req.Envelope = (&Outbox{}).request(&payload{topic: "x"}).Envelope
	var silent trouble
	silent.add(tr.Send(ctx, req))
	if silent.silences != 1 || tr.client != nil {
		t.Errorf("after a silent server: %+v, client %v", silent, tr.client)
	}
	if err := tr.Send(t.Context(), req); err != nil {
		t.Errorf("on a new connection: %v", err)
	}
}

// A listener that nobody serves: connect succeeds, nothing is ever read. The
// attempt ends, even when the message does not fit the socket's buffer.
func TestRow54TransportToADeafServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tr := Dial(path)
	defer tr.Close()
	// Connect first: a deadline that comes before the connection says nothing of the
	// other end.
	if err := tr.(*ttrpcTransport).connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	big := &events.ForwardRequest{Envelope: (&Outbox{}).request(&payload{topic: string(make([]byte, 3<<20))}).Envelope}
	var silent trouble
	silent.add(tr.Send(ctx, big))
	if silent.silences != 1 {
		t.Errorf("%+v", silent)
	}
}

func TestRow54TransportErrors(t *testing.T) {
	s := newServer(t)
	tr := Dial(s.path).(*ttrpcTransport)
	defer tr.Close()
	req := &events.ForwardRequest{Envelope: (&Outbox{}).request(&payload{}).Envelope}

	var absent trouble
	absent.add(tr.Send(t.Context(), req))
	if absent.failures != 1 || absent.silences != 0 {
		t.Errorf("without a socket: %+v", absent)
	}

	s.answer = func(context.Context, int) error { return fmt.Errorf("no: %w", errdefs.ErrInvalidArgument) }
	stop := s.serve()
	var refused trouble
	refused.add(tr.Send(t.Context(), req))
	if refused.refusals != 1 || tr.client == nil {
		t.Errorf("refused: %+v, client %v", refused, tr.client)
	}
	stop()
	var gone trouble
	gone.add(tr.Send(t.Context(), req))
	if gone.failures != 1 || gone.silences != 0 || tr.client != nil {
		t.Errorf("after the server went: %+v, client %v", gone, tr.client)
	}
}

func BenchmarkForward(b *testing.B) {
	s := newServer(b)
	defer s.serve()()
	o := New(Config{Namespace: "ns", Transport: Dial(s.path)})
	defer o.Close()
	for b.Loop() {
		o.Append(Event{Kind: Exit, Topic: "/tasks/exit", Message: &api.TaskExit{ContainerID: "c"}, Container: "c"})
		drain(b, o)
	}
}
