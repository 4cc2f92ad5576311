package ttrpc

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

// far is the server's end of a connection.
type far struct {
	net.Conn
	in incoming
}

// scripted runs body with a client and its far end.
func scripted(t *testing.T, body func(t *testing.T, c *Client, server *far)) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		server := &far{conn, newIncoming(conn)}
		c := NewClient(client, nil)
		defer server.Close()
		defer c.Close()
		body(t, c, server)
	})
}

// readFrame reads the header of a message and skips its body.
func readFrame(t *testing.T, in incoming) header {
	t.Helper()
	h, err := in.next()
	if err == nil {
		err = in.skip(h.length)
	}
	if err != nil {
		t.Errorf("no request: %v", err)
	}
	return h
}

// A server that answers what no server should ends the call, and not the
// connection.
func TestHostileAnswers(t *testing.T) {
	good := appendResponse(nil, nil, []byte("good"))
	for _, c := range []struct {
		name string
		send []byte
		is   func(error) bool
	}{
		{"no Response", frame(2, 1, typeResponse, []byte{0xff, 0xff}), errdefs.IsInternal},
		{"data", frame(uint32(len(good)), 1, typeData, good), errdefs.IsInternal},
		{"too long", append(frame(maxReceived+1, 1, typeResponse, nil), make([]byte, maxReceived+1)...), errdefs.IsResourceExhausted},
		{"another stream's before", append(frame(uint32(len(good)), 99, typeResponse, good), frame(2, 1, typeResponse, []byte{0xff, 0xff})...), errdefs.IsInternal},
	} {
		t.Run(c.name, func(t *testing.T) {
			scripted(t, func(t *testing.T, client *Client, server *far) {
				go func() {
					readFrame(t, server.in)
					_, _ = server.Write(c.send)
					h := readFrame(t, server.in)
					_, _ = server.Write(frame(uint32(len(good)), 1, typeResponse, good)) // once more
					_, _ = server.Write(frame(uint32(len(good)), h.stream, typeResponse, good))
				}()
				if _, err := client.Call(t.Context(), "s", "m", nil); !c.is(err) {
					t.Errorf("%v", err)
				}
				if got, err := client.Call(t.Context(), "s", "m", nil); string(got) != "good" || err != nil {
					t.Errorf("the next call: %q, %v", got, err)
				}
			})
		})
	}
}

// A server that reads nothing holds up no call for longer than its context, and
// the client keeps no more than a bound of requests.
func TestDeafServer(t *testing.T) {
	scripted(t, func(t *testing.T, c *Client, server *far) {
		const n, size = 30, 100 << 10
		ended := make(chan error, n)
		begun := time.Now()
		for range n {
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_, err := c.Call(ctx, "s", "m", make([]byte, size))
				ended <- err
			}()
		}
		synctest.Wait()
		c.mu.Lock()
		waiting := len(c.buf)
		c.mu.Unlock()
		if waiting > maxPending+2*size {
			t.Errorf("%d bytes wait", waiting)
		}
		for range n {
			if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		}
		if took := time.Since(begun); took != time.Second {
			t.Errorf("after %v", took)
		}
		if len(c.calls) > 0 {
			t.Errorf("%d calls are left", len(c.calls))
		}
		// What was sent is still whole, and the connection good.
		go func() {
			h := readFrame(t, server.in)
			for h.length > size {
				h = readFrame(t, server.in)
			}
			_, _ = server.Write(frame(0, h.stream, typeResponse, nil))
		}()
		if _, err := c.Call(context.Background(), "s", "m", nil); err != nil {
			t.Errorf("when the server reads again: %v", err)
		}
	})
}

// A call whose context ends when the reader has its answer at hand returns the
// answer: the reader is about to use what belongs to the call.
func TestAnswerAtTheDeadline(t *testing.T) {
	scripted(t, func(t *testing.T, c *Client, _ *far) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Call(ctx, "s", "m", nil); err != context.Canceled || c.last != 0 {
			t.Errorf("a call after the end of its context: %v, stream %d", err, c.last)
		}
		r := &reply{done: make(chan struct{}, 1)}
		ended := make(chan error, 1)
		go func() {
			_, err := c.await(ctx, 99, r)
			ended <- err
		}()
		synctest.Wait()
		r.err = io.EOF
		r.done <- struct{}{}
		if err := <-ended; err != io.EOF {
			t.Errorf("%v", err)
		}
	})
}

func TestLongRequest(t *testing.T) {
	scripted(t, func(t *testing.T, c *Client, server *far) {
		if _, err := c.Call(t.Context(), "s", "m", make([]byte, MaxMessage)); !errdefs.IsResourceExhausted(err) {
			t.Errorf("%v", err)
		}
		go func() { _, _ = server.Write(frame(0, readFrame(t, server.in).stream, typeResponse, nil)) }()
		if _, err := c.Call(t.Context(), "s", "m", nil); err != nil {
			t.Errorf("the next call: %v", err)
		}
	})
}

// When the server has gone, the calls that wait and those that come say so.
func TestServerGone(t *testing.T) {
	scripted(t, func(t *testing.T, c *Client, server *far) {
		go func() {
			readFrame(t, server.in)
			server.Close()
		}()
		for range 2 {
			if _, err := c.Call(t.Context(), "s", "m", nil); !errors.Is(err, ErrClosed) {
				t.Errorf("%v", err)
			}
		}
		<-c.Done()
	})
}

// Stream ids are not used again: a connection that has no more of them ends.
func TestStreamsEnd(t *testing.T) {
	scripted(t, func(t *testing.T, c *Client, server *far) {
		c.last = math.MaxUint32 - 2
		go func() { _, _ = server.Write(frame(0, readFrame(t, server.in).stream, typeResponse, nil)) }()
		if _, err := c.Call(t.Context(), "s", "m", nil); err != nil {
			t.Error(err)
		}
		if _, err := c.Call(t.Context(), "s", "m", nil); !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}
