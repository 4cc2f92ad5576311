package ttrpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	official "github.com/containerd/ttrpc"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMain(m *testing.M) {
	log.L.Logger.SetOutput(io.Discard) // the official client's, of late answers
	goleak.VerifyTestMain(m)
}

const testService = "lark.test.v1.Echo"

// service is what both servers of the tests serve. Its messages are
// StringValues.
type service struct {
	entered chan struct{} // one element per call of Hold and Held
	release chan struct{} // Hold and Held end when it is closed
}

func newService() *service {
	return &service{entered: make(chan struct{}, 2*MaxBacklog), release: make(chan struct{})}
}

// errNamed are the errors that the method Error gives out.
var errNamed = map[string]error{}

func init() {
	for c := Canceled; c <= Unauthenticated; c++ {
		name := fmt.Sprint("code ", int(c))
		errNamed[name] = fmt.Errorf("%s: %w", name, c.class())
		errNamed["bare "+name] = c.class()
		errNamed["double "+name] = fmt.Errorf("%s: %w: %w", name, errdefs.ErrInternal, c.class())
		errNamed["joined "+name] = errors.Join(fmt.Errorf("first: %w", c.class()), unix.ENOENT, errors.New("third"))
	}
	errNamed["conflict"] = fmt.Errorf("busy: %w", errdefs.ErrConflict)
	errNamed["not modified"] = errdefs.ErrNotModified
	errNamed["no class"] = errors.New("no class")
	errNamed["errno"] = fmt.Errorf("open: %w", unix.EACCES)
	errNamed["path"] = &os.PathError{Op: "open", Path: "/x", Err: unix.ENOENT}
	errNamed["message"] = errdefs.ErrNotFound.WithMessage("container c")
	errNamed["deep"] = fmt.Errorf("a: %w", fmt.Errorf("%w, %w", errors.Join(errdefs.ErrAborted, unix.EIO), fmt.Errorf("z: %w", errdefs.ErrDataLoss)))
}

// methods are the service's, each on the text of the request.
func (s *service) methods() map[string]func(ctx context.Context, meta func(string) string, letIn func(), text string) (string, error) {
	type call = func(ctx context.Context, meta func(string) string, letIn func(), text string) (string, error)
	hold := func(ctx context.Context) (string, error) {
		s.entered <- struct{}{}
		select {
		case <-s.release:
			return "released", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return map[string]call{
		"Echo": func(_ context.Context, _ func(string) string, _ func(), text string) (string, error) {
			return text, nil
		},
		"Error": func(_ context.Context, _ func(string) string, _ func(), text string) (string, error) {
			return "", errNamed[text]
		},
		"Panic": func(context.Context, func(string) string, func(), string) (string, error) { panic("a bug") },
		"Meta": func(_ context.Context, meta func(string) string, _ func(), text string) (string, error) {
			return meta(text), nil
		},
		"Hold": func(ctx context.Context, _ func(string) string, _ func(), _ string) (string, error) { return hold(ctx) },
		"Held": func(ctx context.Context, _ func(string) string, letIn func(), _ string) (string, error) {
			letIn()
			return hold(ctx)
		},
		"Deadline": func(ctx context.Context, _ func(string) string, _ func(), text string) (string, error) {
			if _, ok := ctx.Deadline(); !ok {
				return "none", nil
			} else if text == "ask" {
				return "some", nil
			}
			<-ctx.Done()
			return "", ctx.Err()
		},
		"Long": func(context.Context, func(string) string, func(), string) (string, error) {
			return string(make([]byte, MaxMessage)), nil
		},
	}
}

func marshalText(to []byte, text string) []byte {
	b, err := proto.MarshalOptions{}.MarshalAppend(to, wrapperspb.String(text))
	if err != nil {
		panic(err)
	}
	return b
}

// register makes the service that of a server of this package.
func (s *service) register(srv *Server) {
	for name, m := range s.methods() {
		srv.Register(testService, func(ctx context.Context, c *Call) ([]byte, error) {
			var v wrapperspb.StringValue
			if err := proto.Unmarshal(c.Payload, &v); err != nil {
				return nil, fmt.Errorf("%s: %w: %w", c.Method, errdefs.ErrInvalidArgument, err)
			}
			meta := func(key string) string { value, _ := c.Metadata(key); return string(value) }
			text, err := m(ctx, meta, c.LetIn, v.Value)
			if err != nil {
				return nil, err
			}
			return marshalText(c.Buffer(len(text)+10), text), nil
		}, name)
	}
}

// registerOfficial makes the service that of an official server.
func (s *service) registerOfficial(srv *official.Server) {
	methods := map[string]official.Method{}
	for name, m := range s.methods() {
		methods[name] = func(ctx context.Context, unmarshal func(any) error) (any, error) {
			var v wrapperspb.StringValue
			if err := unmarshal(&v); err != nil {
				return nil, err
			}
			meta := func(key string) string { value, _ := official.GetMetadataValue(ctx, key); return value }
			text, err := m(ctx, meta, func() {}, v.Value)
			if err != nil {
				return nil, toGRPC(err)
			}
			return wrapperspb.String(text), nil
		}
	}
	srv.Register(testService, methods)
}

// pair is a connected pair of stream sockets.
func pair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// serve serves one connection with a server of this package, until the test
// ends.
func serve(t testing.TB, svc *service, conn net.Conn) (*Server, *Conn, *buffer) {
	t.Helper()
	out := &buffer{}
	srv := NewServer(slog.New(slog.NewTextHandler(out, nil)))
	svc.register(srv)
	return srv, serveConn(t, srv, conn), out
}

// serveConn serves a connection until the test ends.
func serveConn(t testing.TB, srv *Server, conn net.Conn) *Conn {
	t.Helper()
	c := srv.NewConn(conn)
	ended := make(chan error, 1)
	go func() { ended <- c.Serve(context.Background()) }()
	t.Cleanup(func() {
		c.Close()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		srv.Close()
	})
	return c
}

// one is a listener with one connection.
type one struct {
	conns chan net.Conn
	once  sync.Once
}

func (l *one) Accept() (net.Conn, error) {
	if c, ok := <-l.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (l *one) Close() error   { l.once.Do(func() { close(l.conns) }); return nil }
func (l *one) Addr() net.Addr { return &net.UnixAddr{} }

// serveOfficial serves one connection with an official server.
func serveOfficial(t testing.TB, svc *service, conn net.Conn) {
	t.Helper()
	srv, err := official.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	svc.registerOfficial(srv)
	startOfficial(t, srv, conn)
}

// startOfficial serves a connection until the test ends. The client must have
// closed it by then: the official server does not end one that is closed under
// it.
func startOfficial(t testing.TB, srv *official.Server, conn net.Conn) {
	t.Helper()
	l := &one{conns: make(chan net.Conn, 1)}
	closed := &closing{Conn: conn, closed: make(chan struct{})}
	l.conns <- closed
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(context.Background(), l)
	}()
	t.Cleanup(func() {
		<-closed.closed
		l.Close()
		<-ended
		_ = srv.Close()
	})
}

// closing is a connection that says when it is closed.
type closing struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *closing) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// caller is a client of either kind.
type caller func(ctx context.Context, service, method, text string) (string, error)

// callOfficial calls with the official client.
func callOfficial(c *official.Client) caller {
	return func(ctx context.Context, service, method, text string) (string, error) {
		var v wrapperspb.StringValue
		err := c.Call(ctx, service, method, wrapperspb.String(text), &v)
		return v.Value, toNative(err)
	}
}

// callOurs calls with the client of this package.
func callOurs(c *Client, metadata ...KeyValue) caller {
	return func(ctx context.Context, service, method, text string) (string, error) {
		b, err := c.Call(ctx, service, method, marshalText(nil, text), metadata...)
		var v wrapperspb.StringValue
		if err := proto.Unmarshal(b, &v); err != nil {
			return "", err
		}
		return v.Value, err
	}
}
