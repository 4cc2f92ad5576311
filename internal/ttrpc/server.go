package ttrpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/routine"
)

// Handler answers a call with the bytes of a message, or with an error: see
// StatusOf. The context is that of the connection, with the call's timeout. The
// Call, and what it gives out, must not be used after the return. A panic is
// logged, and Internal to the client.
type Handler func(ctx context.Context, c *Call) ([]byte, error)

// Server has services and the goroutines that run their handlers. Its fields
// are set before the first connection.
type Server struct {
	log      *slog.Logger
	services map[string]map[string]*endpoint
	work     chan *Call // to a goroutine that waits; nil ends it
	idle     atomic.Int32
	once     sync.Once
	done     chan struct{}
}

// endpoint is one method of one service.
type endpoint struct {
	service, method string
	handler         Handler
}

// NewServer returns a server without a service. A nil log means slog's default.
func NewServer(log *slog.Logger) *Server {
	return &Server{log: log, services: map[string]map[string]*endpoint{}, work: make(chan *Call), done: make(chan struct{})}
}

// Register makes a handler that of these methods of a service.
func (s *Server) Register(service string, h Handler, methods ...string) {
	if s.services[service] == nil {
		s.services[service] = map[string]*endpoint{}
	}
	for _, m := range methods {
		s.services[service][m] = &endpoint{service, m, h}
	}
}

// find returns the method that a request names, or why there is none.
func (s *Server) find(r *request) (*endpoint, *Status) {
	methods, ok := s.services[string(r.service)]
	if !ok {
		return nil, &Status{Code: Unimplemented, Message: "service " + string(r.service)}
	}
	e, ok := methods[string(r.method)]
	if !ok {
		return nil, &Status{Code: Unimplemented, Message: "method " + string(r.method)}
	}
	return e, nil
}

// Rest ends the goroutines that wait for a call, whose stacks are memory. It
// does not wait for those that are about to.
func (s *Server) Rest() {
	for {
		select {
		case s.work <- nil:
		default:
			return
		}
	}
}

// Close ends the goroutines that wait for a call, each when it has none. The
// connections are their owner's to close, before.
func (s *Server) Close() { s.once.Do(func() { close(s.done) }) }

// start runs a call, on a goroutine that waits for one if there is any.
func (s *Server) start(c *Call) {
	select {
	case s.work <- c:
		return
	default:
	}
	begun := false
	routine.Go(s.log, "call", func() {
		begun = true
		s.run(c)
	}, routine.DebtFunc(func() {
		if !begun {
			c.finish(nil, noReturn)
		}
	}))
}

// run runs a call and those that come after.
func (s *Server) run(c *Call) {
	for c != nil {
		c.run()
		c = s.nextCall()
	}
}

// nextCall waits for a call. It returns nil if the goroutine is to end.
func (s *Server) nextCall() *Call {
	defer s.idle.Add(-1)
	if s.idle.Add(1) > maxIdle {
		return nil
	}
	select {
	case c := <-s.work:
		return c
	case <-s.done:
		return nil
	}
}

// Call is one call of a method.
type Call struct {
	// Service and Method are what was registered.
	Service, Method string
	// Payload is the message with the method's arguments.
	Payload []byte

	conn    *Conn
	handler Handler
	stream  uint32
	timeout time.Duration
	letIn   bool // guarded by conn.mu
	in, out []byte
}

// calls has the ones that are over, with their buffers.
var calls = sync.Pool{New: func() any { return &Call{} }}

// Conn is the connection that the call came by.
func (c *Call) Conn() *Conn { return c.conn }

// Metadata returns the first value of a key. Keys are in lower case.
func (c *Call) Metadata(key string) (value []byte, ok bool) {
	return findMetadata(c.in, strings.ToLower(key))
}

// Buffer is an empty buffer for n bytes, to which the handler may append its
// answer. There is one.
func (c *Call) Buffer(n int) []byte {
	if cap(c.out) < n {
		c.out = make([]byte, 0, n)
	}
	return c.out
}

// LetIn takes the call out of the backlog of its connection until its handler
// returns: it is bounded in another way, and may take long.
func (c *Call) LetIn() {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	if !c.letIn {
		c.letIn = true
		c.conn.running++
		c.conn.bytes -= len(c.in)
		c.conn.signal()
	}
}

// noReturn is the answer for a handler that has ended its goroutine.
var noReturn = &Status{Code: Internal, Message: "the call was not run"}

func (c *Call) run() {
	var resp []byte
	st := noReturn
	defer func() { c.finish(resp, st) }()
	resp, st = c.invoke()
}

// invoke calls the handler, and turns an error or a panic into a status.
func (c *Call) invoke() (resp []byte, st *Status) {
	defer func() {
		if p := recover(); p != nil {
			c.conn.server.logger().Error("panic in a handler", "method", c.Method, "panic", p, "stack", string(debug.Stack()))
			resp, st = nil, StatusOf(fmt.Errorf("%s: panic: %v: %w", c.Method, p, errdefs.ErrInternal))
		}
	}()
	ctx := c.conn.ctx
	if c.timeout != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	resp, err := c.handler(ctx, c)
	if err != nil {
		return nil, StatusOf(err)
	}
	if len(resp) > MaxMessage {
		return nil, StatusOf(fmt.Errorf("%s: an answer of %d bytes is longer than %d: %w", c.Method, len(resp), MaxMessage, errdefs.ErrResourceExhausted))
	}
	return resp, nil
}

// finish answers the call and ends its use.
func (c *Call) finish(resp []byte, st *Status) {
	conn := c.conn
	conn.mu.Lock()
	if c.letIn {
		conn.running--
	} else {
		conn.bytes -= len(c.in)
		conn.signal()
	}
	conn.mu.Unlock()
	conn.answer(c.stream, st, resp)
	*c = Call{in: kept(c.in), out: kept(c.out)}
	calls.Put(c)
}

func (s *Server) logger() *slog.Logger {
	if s.log == nil {
		return slog.Default()
	}
	return s.log
}
