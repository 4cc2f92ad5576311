package ttrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Conn is a connection that a Server serves.
type Conn struct {
	outgoing
	server *Server
	in     incoming
	ctx    context.Context // of its calls; set by Serve

	// These are the reader's.
	last   uint32 // the stream id of the last request
	opened uint32 // the last stream that was refused

	// These are guarded by mu.
	taken   uint64 // messages that were read and are to be answered
	running uint64 // of those, the calls that were let in and run
	bytes   int    // of the requests that were not let in and run
}

// NewConn makes a connection that Serve serves.
func (s *Server) NewConn(conn net.Conn) *Conn {
	return &Conn{outgoing: newOutgoing(conn), server: s, in: newIncoming(conn)}
}

// Serve answers calls until the client or Close ends the connection, and then
// closes it and cancels the context of its calls. It does not wait for these.
// It returns an error if the connection has ended in another way.
func (c *Conn) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.ctx = ctx
	err := c.read()
	select {
	case <-c.done: // what reading from a closed connection says is of no interest
		err = nil
	default:
	}
	c.Close()
	for _, gone := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET} {
		if errors.Is(err, gone) { // reset: it has left without reading an answer
			return nil
		}
	}
	return err
}

// Close ends the connection. Calls that run go on, and their answers are lost.
func (c *Conn) Close() { c.end(errClosed) }

// Idle reports whether the answer to each message has been written.
func (c *Conn) Idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent >= c.taken
}

// read reads messages until the end.
func (c *Conn) read() error {
	for {
		if err := c.awaitRoom(); err != nil {
			return err
		}
		h, err := c.in.next()
		if err != nil {
			return err
		}
		st, answered := c.judge(h)
		switch {
		case st == nil && !answered:
			err = c.call(h)
		case answered:
			err = c.in.skip(h.length)
		default:
			if err = c.in.skip(h.length); err == nil {
				c.refuse(h.stream, st)
			}
		}
		if err != nil {
			return err
		}
	}
}

// awaitRoom returns when the connection has no backlog: requests that were
// neither answered nor let in. Those end soon, whatever the ones do that were
// let in.
func (c *Conn) awaitRoom() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && (c.taken-c.sent > c.running+MaxBacklog || c.bytes > maxBacklogBytes) {
		c.wait(nil)
	}
	return c.err
}

// judge decides from its header what happens to a message: nil and false for a
// call, the status that it is refused with, or true if its stream was answered.
func (c *Conn) judge(h header) (st *Status, answered bool) {
	switch {
	case h.length > MaxMessage:
		return refusal(ResourceExhausted, "message of %d bytes is longer than %d", h.length, MaxMessage), false
	case h.kind == typeData && h.stream == c.opened && h.stream != 0:
		return nil, true
	case h.kind == typeData:
		return refusal(Unimplemented, "streams are not served"), false
	case h.kind != typeRequest:
		return refusal(Unimplemented, "message of type %d", h.kind), false
	case h.stream%2 != 1:
		return refusal(InvalidArgument, "stream id must be odd"), false
	case h.stream <= c.last:
		return refusal(InvalidArgument, "stream id must increase"), false
	}
	c.last = h.stream
	if h.flags&flagsStream != 0 {
		c.opened = h.stream
		return refusal(Unimplemented, "streams are not served"), false
	}
	return nil, false
}

func refusal(code Code, format string, args ...any) *Status {
	return &Status{Code: code, Message: fmt.Sprintf(format, args...)}
}

// call reads a request and starts its handler.
func (c *Conn) call(h header) error {
	call := calls.Get().(*Call)
	var err error
	if call.in, err = c.in.body(call.in, int(h.length)); err != nil {
		return err
	}
	var r request
	var e *endpoint
	var st *Status
	if err := r.parse(call.in); err != nil {
		st = refusal(InvalidArgument, "request: %v", err)
	} else {
		e, st = c.server.find(&r)
	}
	if st != nil {
		call.in = kept(call.in)
		calls.Put(call)
		c.refuse(h.stream, st)
		return nil
	}
	call.Service, call.Method, call.handler = e.service, e.method, e.handler
	call.Payload, call.timeout = r.payload, time.Duration(r.timeout)
	call.conn, call.stream = c, h.stream
	c.mu.Lock()
	c.taken++
	c.bytes += len(call.in)
	c.mu.Unlock()
	c.server.start(call)
	return nil
}

// refuse answers a message that starts no handler. The reader itself does so,
// and a client that takes no answers is not read from.
func (c *Conn) refuse(stream uint32, st *Status) {
	c.mu.Lock()
	c.taken++
	c.mu.Unlock()
	c.answer(stream, st, nil)
}

// answer sends a response, unless the connection has ended.
func (c *Conn) answer(stream uint32, st *Status, payload []byte) {
	if c.reserve(nil) != nil {
		return
	}
	start := len(c.buf)
	c.buf = beginFrame(c.buf, stream, typeResponse)
	c.buf = appendResponse(c.buf, st, payload)
	endFrame(c.buf, start)
	c.count++
	c.flush()
}
