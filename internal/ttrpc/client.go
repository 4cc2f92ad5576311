package ttrpc

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/routine"
)

// ErrClosed is the error of a call whose connection has ended before the
// answer. Whether the call has been run is not known.
var ErrClosed = fmt.Errorf("ttrpc: the connection has ended: %w", errdefs.ErrUnavailable)

// Client calls the methods of a server. Its methods may be called by several
// goroutines at once.
type Client struct {
	outgoing
	in   incoming
	wake chan struct{} // to the writer: there are messages

	// These are guarded by mu.
	last  uint32 // the stream id of the last call
	calls map[uint32]*reply
	free  []*reply // for calls to come
}

// reply is what a call waits for.
type reply struct {
	payload []byte
	err     error
	done    chan struct{} // has an element when the others are set
}

// NewClient returns a client that owns the connection. A nil log means slog's
// default.
func NewClient(conn net.Conn, log *slog.Logger) *Client {
	c := &Client{outgoing: newOutgoing(conn), in: newIncoming(conn), wake: make(chan struct{}, 1), calls: map[uint32]*reply{}}
	routine.Go(log, "ttrpc reader", func() { c.fail(c.read()) }, c)
	routine.Go(log, "ttrpc writer", c.write, c)
	return c
}

// Close ends the connection, and with it every call. It may be called again.
func (c *Client) Close() error {
	c.fail(errClosed)
	return nil
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Call calls a method and returns the payload of the answer, which is the
// caller's. An answer with an error is a *Status; an error of another type is
// not from the server. When the context ends first, the error is the context's,
// and the connection goes on. The server is sent the context's deadline.
func (c *Client) Call(ctx context.Context, service, method string, payload []byte, metadata ...KeyValue) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var timeout int64
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(int64(time.Until(deadline)), 1)
	}
	if err := c.reserve(ctx.Done()); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, ErrClosed
	}
	if c.last > math.MaxUint32-2 {
		c.mu.Unlock()
		_ = c.Close() // its owner makes another
		return nil, ErrClosed
	}
	start := len(c.buf)
	c.buf = beginFrame(c.buf, c.nextStream(), typeRequest)
	c.buf = appendRequest(c.buf, service, method, payload, timeout, metadata)
	if n := len(c.buf) - start - headerSize; n > MaxMessage {
		c.buf = c.buf[:start]
		c.mu.Unlock()
		return nil, fmt.Errorf("%s: a request of %d bytes is longer than %d: %w", method, n, MaxMessage, errdefs.ErrResourceExhausted)
	}
	endFrame(c.buf, start)
	c.count++
	r, stream := c.newReply(), c.last
	c.calls[stream] = r
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return c.await(ctx, stream, r)
}

func (c *Client) nextStream() uint32 {
	if c.last == 0 {
		c.last = 1
	} else {
		c.last += 2
	}
	return c.last
}

// newReply returns a reply for a call, with mu held.
func (c *Client) newReply() *reply {
	n := len(c.free)
	if n == 0 {
		return &reply{done: make(chan struct{}, 1)}
	}
	r := c.free[n-1]
	c.free = c.free[:n-1]
	return r
}

// recycle keeps a reply that no call has for one to come.
func (c *Client) recycle(r *reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.payload, r.err = nil, nil; len(c.free) < maxIdle {
		c.free = append(c.free, r)
	}
}

// await returns the answer to a call.
func (c *Client) await(ctx context.Context, stream uint32, r *reply) ([]byte, error) {
	select {
	case <-r.done:
	case <-ctx.Done():
		if c.take(stream) != nil {
			c.recycle(r)
			return nil, ctx.Err()
		}
		<-r.done // the reader has taken it
	}
	payload, err := r.payload, r.err
	c.recycle(r)
	return payload, err
}

// take returns the call on a stream and forgets it; nil if there is none.
func (c *Client) take(stream uint32) *reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.calls[stream]
	delete(c.calls, stream)
	return r
}

// write writes messages until the end.
func (c *Client) write() {
	for {
		select {
		case <-c.wake:
			c.mu.Lock()
			c.flush()
		case <-c.done:
			return
		}
	}
}

// read gives the answers to the calls until the end. An answer to a call that
// was given up is passed over.
func (c *Client) read() error {
	var buf []byte
	for {
		h, err := c.in.next()
		if err != nil {
			return err
		}
		if h.length > maxReceived {
			if err := c.in.skip(h.length); err != nil {
				return err
			}
			c.deliver(h.stream, nil, fmt.Errorf("an answer of %d bytes is longer than %d: %w", h.length, maxReceived, errdefs.ErrResourceExhausted))
			continue
		}
		if buf, err = c.in.body(buf, int(h.length)); err != nil {
			return err
		}
		payload, err := answerOf(h, buf)
		c.deliver(h.stream, payload, err)
		buf = kept(buf)
	}
}

// answerOf returns what a message says to the call on its stream.
func answerOf(h header, b []byte) ([]byte, error) {
	if h.kind != typeResponse {
		return nil, fmt.Errorf("an answer of type %d: %w", h.kind, errdefs.ErrInternal)
	}
	payload, st, err := parseResponse(b)
	if err != nil {
		return nil, fmt.Errorf("an answer that is no Response: %w: %w", err, errdefs.ErrInternal)
	}
	if st != nil && st.Code != OK {
		return nil, st
	}
	return payload, nil
}

// deliver gives a call a copy of its answer.
func (c *Client) deliver(stream uint32, payload []byte, err error) {
	if r := c.take(stream); r != nil {
		r.payload, r.err = append([]byte(nil), payload...), err
		r.done <- struct{}{}
	}
}

// fail ends the connection and every call.
func (c *Client) fail(err error) {
	c.end(err)
	c.mu.Lock()
	left := c.calls
	c.calls = nil // after the end no call is added
	c.mu.Unlock()
	for _, r := range left {
		r.err = ErrClosed
		r.done <- struct{}{}
	}
}
