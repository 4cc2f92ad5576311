package ttrpc

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	official "github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A panic is one call's failure.
func TestPanicIsAnAnswer(t *testing.T) {
	client, server := pair(t)
	_, _, log := serve(t, newService(), server)
	c := official.NewClient(client)
	defer c.Close()
	call := callOfficial(c)
	for range 3 {
		if _, err := call(t.Context(), testService, "Panic", ""); !errdefs.IsInternal(err) || !strings.Contains(err.Error(), "a bug") {
			t.Errorf("%v", err)
		}
	}
	if got, err := call(t.Context(), testService, "Echo", "x"); got != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if !strings.Contains(log.String(), "panic in a handler") || !strings.Contains(log.String(), "harness_test.go") {
		t.Errorf("the stack is not in the log:\n%s", log)
	}
}

func TestLongAnswer(t *testing.T) {
	client, server := pair(t)
	serve(t, newService(), server)
	c := official.NewClient(client)
	defer c.Close()
	if _, err := callOfficial(c)(t.Context(), testService, "Long", ""); !errdefs.IsResourceExhausted(err) {
		t.Errorf("%v", err)
	}
	if got, err := callOfficial(c)(t.Context(), testService, "Echo", "x"); got != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// Streams are refused on their own stream, and so is what their client still
// sends on them.
func TestStreamsAreRefused(t *testing.T) {
	client, server := pair(t)
	serve(t, newService(), server)
	c := official.NewClient(client)
	defer c.Close()
	for _, desc := range []*official.StreamDesc{{StreamingClient: true, StreamingServer: true}, {StreamingServer: true}, {StreamingClient: true}} {
		s, err := c.NewStream(t.Context(), desc, testService, "Echo", wrapperspb.String("x"))
		if err != nil {
			t.Fatal(err)
		}
		if desc.StreamingClient {
			for range 3 {
				_ = s.SendMsg(wrapperspb.String("x")) // the refusal may have come before
			}
			_ = s.CloseSend()
		}
		if err := toNative(s.RecvMsg(&wrapperspb.StringValue{})); !errdefs.IsNotImplemented(err) {
			t.Errorf("%+v: %v", desc, err)
		}
		if got, err := callOfficial(c)(t.Context(), testService, "Echo", "y"); got != "y" || err != nil {
			t.Errorf("after it: %q, %v", got, err)
		}
	}
}

// Goroutines are used again, and go at rest.
func TestGoroutinesAreUsedAgain(t *testing.T) {
	client, server := pair(t)
	svc := newService()
	srv, _, _ := serve(t, svc, server)
	c := NewClient(client, nil)
	defer c.Close()
	call := callOurs(c)
	const n = maxIdle + 20
	ended := make(chan error, n)
	for range n {
		go func() {
			_, err := call(t.Context(), testService, "Held", "")
			ended <- err
		}()
	}
	for range n {
		<-svc.entered
	}
	close(svc.release)
	for range n {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	until(t, "all have come to rest", func() bool { return srv.idle.Load() == maxIdle })
	for range 100 {
		if _, err := call(t.Context(), testService, "Echo", ""); err != nil {
			t.Fatal(err)
		}
		until(t, "the same number rests", func() bool { return srv.idle.Load() == maxIdle })
	}
	until(t, "none is left", func() bool {
		srv.Rest() // one that has only just ended its call is not there yet
		return srv.idle.Load() == 0
	})
	if got, err := call(t.Context(), testService, "Echo", "x"); got != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// The context of a call ends with its connection.
func TestContextEndsWithTheConnection(t *testing.T) {
	client, server := pair(t)
	srv := NewServer(nil)
	defer srv.Close()
	entered, ended := make(chan *Conn), make(chan error)
	srv.Register(testService, func(ctx context.Context, c *Call) ([]byte, error) {
		entered <- c.Conn()
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, nil
	}, "M")
	conn := srv.NewConn(server)
	served := make(chan error)
	go func() { served <- conn.Serve(t.Context()) }()
	c := NewClient(client, nil)
	go func() { _, _ = c.Call(context.Background(), testService, "M", nil) }()
	if got := <-entered; got != conn {
		t.Errorf("the call came by %p, not %p", got, conn)
	}
	if conn.Idle() {
		t.Error("idle during a call")
	}
	c.Close()
	if err := <-ended; err != context.Canceled {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
