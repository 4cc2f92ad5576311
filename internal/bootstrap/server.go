package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/rawio"
	"github.com/larkshim/lark/internal/routine"
	"github.com/larkshim/lark/internal/taskapi"
)

// namespaceHeader is the metadata in which containerd, from 1.7 on, says with every call
// what namespace it is made in.
const namespaceHeader = "containerd-namespace-ttrpc"

// server answers the task API on a socket.
type server struct {
	log   *slog.Logger
	ns    bundle.Namespace
	ttrpc *ttrpc.Server
	idler *idler
	calls atomic.Int64 // running now
	work  atomic.Int64 // of those, the ones that fork
	// connections is told of every connection; may be nil.
	connections Connections
	// closing: the service is being closed, so that no call may reach it.
	closing atomic.Bool

	refusedOnce, fullOnce sync.Once

	mu       sync.Mutex
	conns    map[*policed]struct{}
	accepted uint64     // connections so far
	placed   int        // of those, the ones that may begin work
	fewer    *sync.Cond // of mu: a connection has ended, or all have
	ended    bool
	wg       sync.WaitGroup // one per connection
}

func newServer(svc task.TTRPCTaskService, ns bundle.Namespace, log *slog.Logger) (*server, error) {
	s := &server{log: log, ns: ns, conns: map[*policed]struct{}{}}
	s.fewer = sync.NewCond(&s.mu)
	s.idler = newIdler(func() bool { return s.work.Load() > 0 }, log)
	srv, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(s.intercept))
	if err != nil {
		return nil, fmt.Errorf("ttrpc: %w", err)
	}
	taskapi.Register(srv, svc)
	s.ttrpc = srv
	return s, nil
}

// serve accepts connections until the listener is closed. The context is that of all
// calls.
func (s *server) serve(ctx context.Context, l net.Listener) error {
	var backoff time.Duration
	for {
		s.awaitPlace()
		conn, err := l.Accept()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ECONNABORTED):
			// What is missing comes back; the connection waits in the backlog.
			backoff = min(max(2*backoff, time.Millisecond), time.Second)
			time.Sleep(backoff)
			continue
		default:
			return err
		}
		backoff = 0
		if err := samePeer(conn); err != nil {
			s.refusedOnce.Do(func() { s.log.Warn("connection refused; this is logged once", "error", err) })
			conn.Close()
			continue
		}
		s.start(ctx, conn)
	}
}

// samePeer refuses a peer of another user. The socket's mode and directory keep them
// away already; this is the second wall (CVE-2020-15257).
func samePeer(conn net.Conn) error {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("a %s connection", conn.LocalAddr().Network())
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return os.NewSyscallError("SO_PEERCRED", credErr)
	}
	if int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("peer %d is uid %d: %w", cred.Pid, cred.Uid, errdefs.ErrPermissionDenied)
	}
	return nil
}

// connKey is the key of the connection in the context of its calls.
type connKey struct{}

// start serves one connection. Each has a Serve of its own, because the context given
// there is the only thing that a handler can know its connection by.
func (s *server) start(ctx context.Context, conn net.Conn) {
	direct, err := rawio.New(conn)
	if err != nil { // no socket: cannot be
		s.log.Error("connection refused", "error", err)
		conn.Close()
		return
	}
	c := newPoliced(direct, func(err error) { s.log.Warn("connection ended", "error", err) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		c.Close()
		return
	}
	s.conns[c] = struct{}{}
	c.extra.Store(true)
	if !s.placeLocked(c) {
		s.fullOnce.Do(func() {
			s.log.Warn("a connection may begin nothing, there are too many; this is logged once", "limit", maxConns)
		})
	}
	s.accepted++
	number := s.accepted
	if s.connections != nil {
		s.connections.Opened(number)
	}
	s.wg.Add(1)
	routine.Go(s.log, "connection", func() {
		_ = s.ttrpc.Serve(taskapi.WithConn(context.WithValue(ctx, connKey{}, c), number), &single{conn: c})
	}, routine.DebtFunc(func() {
		defer s.wg.Done()
		c.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
		if !c.extra.Load() {
			s.placed--
		}
		s.fewer.Broadcast()
		if s.connections != nil {
			s.connections.Closed(number)
		}
		s.log.Debug("a client has left", "connection", number)
	}))
}

// awaitPlace returns when a connection may be accepted.
func (s *server) awaitPlace() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns) >= maxConns+maxExtra && !s.ended {
		s.fewer.Wait()
	}
}

// place reports whether the connection may begin work: it has one of maxConns
// places, or there is one for it now.
func (s *server) place(c *policed) bool {
	if c == nil || !c.extra.Load() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.placeLocked(c)
}

// placeLocked is place, with mu held.
func (s *server) placeLocked(c *policed) bool {
	if c.extra.Load() && s.placed < maxConns {
		s.placed++
		c.extra.Store(false)
	}
	return !c.extra.Load()
}

// single is a listener with one connection to accept.
type single struct {
	conn  *policed
	given bool
}

// Accept returns the connection and, the second time, waits for its end.
func (l *single) Accept() (net.Conn, error) {
	if !l.given {
		l.given = true
		return l.conn, nil
	}
	<-l.conn.gone
	return nil, net.ErrClosed
}

// Close does nothing: the library closes the connection itself.
func (l *single) Close() error { return nil }

func (l *single) Addr() net.Addr { return l.conn.LocalAddr() }

// idle reports whether every request of every connection has been answered.
func (s *server) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if !c.idle() {
			return false
		}
	}
	return true
}

// left reports whether all clients have gone.
func (s *server) left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns) == 0
}

// close ends every connection and waits for that.
func (s *server) close() {
	s.mu.Lock()
	s.ended = true
	s.fewer.Broadcast()
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	_ = s.ttrpc.Close()
	s.wg.Wait()
}

// intercept runs every call: it bounds how many run, turns a panic into an error and
// a native error into a status.
func (s *server) intercept(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (resp any, err error) {
	conn, _ := ctx.Value(connKey{}).(*policed)
	if conn != nil {
		defer conn.awaitSettled(conn.taken.Load())
	}
	name := path.Base(info.FullMethod)
	defer s.idler.called(name)
	if err := s.checkNamespace(ctx); err != nil {
		return nil, answerable(fmt.Errorf("%s: %w", name, err))
	}
	leave, err := s.enter(conn, name)
	if err != nil {
		return nil, answerable(err)
	}
	defer leave()
	defer func() {
		if p := recover(); p != nil {
			// One container's bug must not take the pod down.
			s.log.Error("panic in a handler", "method", name, "panic", p, "stack", string(debug.Stack()))
			resp, err = nil, answerable(fmt.Errorf("%s: panic: %v: %w", name, p, errdefs.ErrInternal))
		}
	}()
	begun := time.Now()
	resp, err = method(ctx, func(m any) error {
		if err := unmarshal(m); err != nil {
			return fmt.Errorf("%s: request: %w: %w", name, errdefs.ErrInvalidArgument, err)
		}
		return nil
	})
	if s.log.Enabled(ctx, slog.LevelDebug) { // else its arguments would be made for nobody
		s.log.Debug("call", "method", name, "took", time.Since(begun), "error", err)
	}
	if err == nil {
		err = checkAnswer(name, resp)
	}
	return resp, answerable(err)
}

// checkNamespace refuses a call that is meant for another namespace's shim. Containers
// of two namespaces may have one id, and a mixed-up address must not make the one pay
// for the other. Who says nothing is taken at his word: ids are unique here.
func (s *server) checkNamespace(ctx context.Context) error {
	said, ok := ttrpc.GetMetadataValue(ctx, namespaceHeader)
	if !ok || said == s.ns.String() {
		return nil
	}
	if len(said) > maxQuoted {
		said = said[:maxQuoted]
	}
	return fmt.Errorf("namespace %q is not %q, which this shim serves: %w", said, s.ns, errdefs.ErrFailedPrecondition)
}

// checkAnswer refuses an answer that the library cannot send: its end would be that of
// the connection.
func checkAnswer(name string, resp any) error {
	m, ok := resp.(proto.Message)
	if !ok {
		return nil
	}
	if n := proto.Size(m); n > maxAnswer {
		return fmt.Errorf("%s: an answer of %d bytes is longer than %d: %w", name, n, maxAnswer, errdefs.ErrResourceExhausted)
	}
	return nil
}

// answerable makes an error the status that a client is sent. A text that is not UTF-8
// could not be, and the client would wait for ever; a long one would be refused as a
// message.
func answerable(err error) error {
	if err == nil {
		return nil
	}
	grpc := errgrpc.ToGRPC(err)
	st, ok := status.FromError(grpc)
	if !ok || utf8.ValidString(st.Message()) && len(st.Message()) <= maxMessage {
		return grpc
	}
	text := st.Message()
	text = text[:min(len(text), maxMessage)]
	return status.Error(st.Code(), strings.ToValidUTF8(text, "?"))
}

// enter counts a call in, or refuses it. Those that end something, and those that
// only look, are never refused for the sake of others of their kind: they are short,
// and the way out of trouble. What is counted is no part of its connection's backlog.
func (s *server) enter(conn *policed, name string) (leave func(), err error) {
	if s.closing.Load() {
		return nil, fmt.Errorf("%s: the shim is ending: %w", name, errdefs.ErrUnavailable)
	}
	counter, limit := &s.calls, int64(maxConcurrent)
	switch name {
	case "Kill", "Delete", "Shutdown", "State", "Connect", "Pids", "CloseIO":
		return func() {}, nil
	case "Create", "Start", "Exec", "Checkpoint", "Update", "Pause", "Resume":
		counter, limit = &s.work, maxWork
	}
	if !s.place(conn) {
		return nil, fmt.Errorf("%s: there are %d connections that may call it: %w", name, maxConns, errdefs.ErrResourceExhausted)
	}
	if counter.Add(1) > limit {
		counter.Add(-1)
		return nil, fmt.Errorf("%s: %d calls are running: %w", name, limit, errdefs.ErrResourceExhausted)
	}
	end := conn.begun()
	return func() { counter.Add(-1); end() }, nil
}
