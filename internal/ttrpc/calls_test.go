package ttrpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	official "github.com/containerd/ttrpc"
)

// peers is a connection between a client and a server, of which at least one is
// of this package.
type peers struct {
	svc   *service
	close func() // the client
	// caller returns a caller that sends metadata, and the context to call
	// with.
	caller func(metadata ...KeyValue) (context.Context, caller)
	closed error // the error of a call whose connection ends
}

func (p *peers) call(t *testing.T, ctx context.Context, method, text string) (string, error) {
	t.Helper()
	_, call := p.caller()
	return call(ctx, testService, method, text)
}

func eachPeers(t *testing.T, body func(t *testing.T, p *peers)) {
	serveOurs := func(t *testing.T, svc *service, conn net.Conn) { serve(t, svc, conn) }
	serveTheirs := func(t *testing.T, svc *service, conn net.Conn) { serveOfficial(t, svc, conn) }
	ours := func(t *testing.T, p *peers, conn net.Conn) {
		c := NewClient(conn, nil)
		t.Cleanup(func() { c.Close() })
		p.close, p.closed = func() { c.Close() }, ErrClosed
		p.caller = func(md ...KeyValue) (context.Context, caller) { return t.Context(), callOurs(c, md...) }
	}
	theirs := func(t *testing.T, p *peers, conn net.Conn) {
		c := official.NewClient(conn)
		t.Cleanup(func() { c.Close() })
		p.close, p.closed = func() { c.Close() }, official.ErrClosed
		p.caller = func(pairs ...KeyValue) (context.Context, caller) {
			md := official.MD{}
			for _, kv := range pairs {
				md.Append(kv.Key, kv.Value)
			}
			return official.WithMetadata(t.Context(), md), callOfficial(c)
		}
	}
	for _, k := range []struct {
		name   string
		client func(*testing.T, *peers, net.Conn)
		server func(*testing.T, *service, net.Conn)
	}{
		{"official client", theirs, serveOurs},
		{"official server", ours, serveTheirs},
		{"both ours", ours, serveOurs},
	} {
		t.Run(k.name, func(t *testing.T) {
			client, server := pair(t)
			p := &peers{svc: newService()}
			k.server(t, p.svc, server)
			k.client(t, p, client)
			body(t, p)
		})
	}
}

func TestPayloads(t *testing.T) {
	eachPeers(t, func(t *testing.T, p *peers) {
		for _, text := range []string{"", "x", strings.Repeat("y", 5000), strings.Repeat("z", 1<<20), strings.Repeat("w", MaxMessage-100), "again"} {
			if got, err := p.call(t, t.Context(), "Echo", text); got != text || err != nil {
				t.Errorf("%d bytes came back as %d, %v", len(text), len(got), err)
			}
		}
	})
}

func TestMetadata(t *testing.T) {
	eachPeers(t, func(t *testing.T, p *peers) {
		ctx, call := p.caller(KeyValue{"some-key", "a value"}, KeyValue{"other", "1"}, KeyValue{"other", "2"}, KeyValue{"empty", ""})
		for key, want := range map[string]string{"some-key": "a value", "Some-Key": "a value", "other": "1", "empty": "", "none": ""} {
			if got, err := call(ctx, testService, "Meta", key); got != want || err != nil {
				t.Errorf("%q is %q, %v; want %q", key, got, err, want)
			}
		}
	})
}

// Every class of error arrives, with its text and its details.
func TestErrors(t *testing.T) {
	eachPeers(t, func(t *testing.T, p *peers) {
		for name, cause := range errNamed {
			_, err := p.call(t, t.Context(), "Error", name)
			want := toNative(toGRPC(cause))
			if errdefs.Resolve(err) != errdefs.Resolve(want) {
				t.Errorf("%s: %v of class %v, want class %v", name, err, errdefs.Resolve(err), errdefs.Resolve(want))
			}
			if st, ok := errors.AsType[*Status](err); ok { // our client: details are there to look at
				if n, want := len(st.Details), len(StatusOf(cause).Details); n != want {
					t.Errorf("%s: %d details, want %d", name, n, want)
				}
				if !strings.HasPrefix(want.Error(), err.Error()) {
					t.Errorf("%s: %q, want %q", name, err, want)
				}
			} else if err.Error() != want.Error() {
				t.Errorf("%s: %q, want %q", name, err, want)
			}
		}
	})
}

func TestUnknownNames(t *testing.T) {
	eachPeers(t, func(t *testing.T, p *peers) {
		_, call := p.caller()
		for _, name := range [][2]string{{"no.Service", "Echo"}, {testService, "None"}, {"", ""}, {testService, strings.Repeat("x", MaxMessage-300)}} {
			if _, err := call(t.Context(), name[0], name[1], ""); !errdefs.IsNotImplemented(err) {
				t.Errorf("%.50q: %.100v", name, err)
			}
		}
		if got, err := p.call(t, t.Context(), "Echo", "after"); got != "after" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// The server's handler has the client's deadline, and the client's call ends
// with it.
func TestDeadline(t *testing.T) {
	eachPeers(t, func(t *testing.T, p *peers) {
		if got, err := p.call(t, t.Context(), "Deadline", ""); got != "none" || err != nil {
			t.Errorf("without a deadline: %q, %v", got, err)
		}
		far, forget := context.WithTimeout(t.Context(), time.Hour)
		defer forget()
		if got, err := p.call(t, far, "Deadline", "ask"); got != "some" || err != nil {
			t.Errorf("with a deadline: %q, %v", got, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1)
		defer cancel()
		<-ctx.Done()
		if _, err := p.call(t, ctx, "Hold", ""); !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "deadline") {
			t.Errorf("after the deadline: %v", err)
		}
	})
}

// A call whose client has gone does not disturb the others, and a deadline that
// the client does not wait for still ends the handler.
func TestCancelledCalls(t *testing.T) {
	eachPeers(t, func(t *testing.T, p *peers) {
		ctx, cancel := context.WithCancel(t.Context())
		const n = 20
		ended := make(chan error, n)
		for range n {
			go func() {
				_, err := p.call(t, ctx, "Held", "")
				ended <- err
			}()
		}
		for range n {
			<-p.svc.entered
		}
		cancel()
		for range n {
			if err := <-ended; !strings.Contains(err.Error(), context.Canceled.Error()) {
				t.Errorf("a cancelled call: %v", err)
			}
		}
		close(p.svc.release) // answers that nobody waits for
		for i := range n {
			text := fmt.Sprint("after ", i)
			if got, err := p.call(t, t.Context(), "Echo", text); got != text || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		}
	})
}

func TestConcurrentCalls(t *testing.T) {
	eachPeers(t, func(t *testing.T, p *peers) {
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				for j := range 20 {
					text := strings.Repeat(fmt.Sprint(i, " ", j, ";"), 1+i*j)
					if got, err := p.call(t, t.Context(), "Echo", text); got != text || err != nil {
						t.Errorf("%.20q came back as %.20q, %v", text, got, err)
					}
				}
			})
		}
		wg.Wait()
	})
}

// The end of a connection ends the calls that wait, and those that come.
func TestClose(t *testing.T) {
	eachPeers(t, func(t *testing.T, p *peers) {
		const n = 20
		ended := make(chan error, n)
		for range n {
			go func() {
				_, err := p.call(t, t.Context(), "Held", "")
				ended <- err
			}()
		}
		for range n {
			<-p.svc.entered
		}
		p.close()
		for range n {
			if err := <-ended; err == nil || err.Error() != p.closed.Error() && !strings.Contains(err.Error(), p.closed.Error()) {
				t.Errorf("a call: %v", err)
			}
		}
		if _, err := p.call(t, t.Context(), "Echo", ""); err == nil {
			t.Error("a call after the end was answered")
		}
	})
}
