package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/rawio"
	"github.com/larkshim/lark/internal/routine"
	"github.com/larkshim/lark/internal/taskapi"
	"github.com/larkshim/lark/internal/ttrpc"
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
	conns    map[*client]struct{}
	accepted uint64     // connections so far
	placed   int        // of those, the ones that may begin work
	fewer    *sync.Cond // of mu: a connection has ended, or all have
	ended    bool
	wg       sync.WaitGroup // one per connection
}

func newServer(svc task.TTRPCTaskService, ns bundle.Namespace, log *slog.Logger) (*server, error) {
	s := &server{log: log, ns: ns, conns: map[*client]struct{}{}}
	s.fewer = sync.NewCond(&s.mu)
	s.idler = newIdler(func() bool { return s.work.Load() > 0 }, log)
	s.ttrpc = ttrpc.NewServer(log)
	give := s.idler.give
	s.idler.give = func() {
		s.ttrpc.Rest()
		give()
	}
	for name, h := range taskapi.Methods(svc) {
		for _, service := range []string{taskapi.V2, taskapi.V3} {
			s.ttrpc.Register(service, func(ctx context.Context, c *ttrpc.Call) ([]byte, error) { return s.call(ctx, c, h) }, name)
		}
	}
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

// client is a connection.
type client struct {
	*ttrpc.Conn
	// extra: it was accepted beyond maxConns, see server.place.
	extra atomic.Bool
}

// start serves one connection. Each has a Serve of its own, because the context given
// there is the only thing that a handler can know its connection by.
func (s *server) start(ctx context.Context, conn net.Conn) {
	direct, err := rawio.New(conn)
	if err != nil { // no socket: cannot be
		s.log.Error("connection refused", "error", err)
		conn.Close()
		return
	}
	c := &client{Conn: s.ttrpc.NewConn(direct)}
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
		if err := c.Serve(taskapi.WithConn(context.WithValue(ctx, connKey{}, c), number)); err != nil {
			s.log.Warn("connection ended", "error", err)
		}
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
func (s *server) place(c *client) bool {
	if c == nil || !c.extra.Load() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.placeLocked(c)
}

// placeLocked is place, with mu held.
func (s *server) placeLocked(c *client) bool {
	if c.extra.Load() && s.placed < maxConns {
		s.placed++
		c.extra.Store(false)
	}
	return !c.extra.Load()
}

// idle reports whether every request of every connection has been answered.
func (s *server) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if !c.Idle() {
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
	s.wg.Wait()
	s.ttrpc.Close()
}

// call runs every call: it bounds how many run.
func (s *server) call(ctx context.Context, c *ttrpc.Call, h taskapi.Handler) (answer []byte, err error) {
	defer s.idler.called(c.Method)
	if err := s.checkNamespace(c); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Method, err)
	}
	from, _ := ctx.Value(connKey{}).(*client)
	counter, err := s.enter(from, c.Method)
	if err != nil {
		return nil, err
	}
	if counter != nil {
		defer counter.Add(-1)
		c.LetIn()
	}
	begun := time.Now()
	resp, err := h(ctx, c.Payload)
	if s.log.Enabled(ctx, slog.LevelDebug) { // else its arguments would be made for nobody
		s.log.Debug("call", "method", c.Method, "took", time.Since(begun), "error", err)
	}
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(c.Buffer(proto.Size(resp)), resp)
}

// checkNamespace refuses a call that is meant for another namespace's shim. Containers
// of two namespaces may have one id, and a mixed-up address must not make the one pay
// for the other. Who says nothing is taken at his word: ids are unique here.
func (s *server) checkNamespace(c *ttrpc.Call) error {
	said, ok := c.Metadata(namespaceHeader)
	if !ok || string(said) == s.ns.String() {
		return nil
	}
	if len(said) > maxQuoted {
		said = said[:maxQuoted]
	}
	return fmt.Errorf("namespace %q is not %q, which this shim serves: %w", said, s.ns, errdefs.ErrFailedPrecondition)
}

// enter counts a call in, or refuses it, and returns the counter: nil for a call
// that is not counted. Those that end something, and those that only look, are
// never refused for the sake of others of their kind: they are short, and the way
// out of trouble. What is counted is no part of its connection's backlog.
func (s *server) enter(from *client, name string) (counter *atomic.Int64, err error) {
	if s.closing.Load() {
		return nil, fmt.Errorf("%s: the shim is ending: %w", name, errdefs.ErrUnavailable)
	}
	counter, limit := &s.calls, int64(maxConcurrent)
	switch name {
	case "Kill", "Delete", "Shutdown", "State", "Connect", "Pids", "CloseIO":
		return nil, nil
	case "Create", "Start", "Exec", "Checkpoint", "Update", "Pause", "Resume":
		counter, limit = &s.work, maxWork
	}
	if !s.place(from) {
		return nil, fmt.Errorf("%s: there are %d connections that may call it: %w", name, maxConns, errdefs.ErrResourceExhausted)
	}
	if counter.Add(1) > limit {
		counter.Add(-1)
		return nil, fmt.Errorf("%s: %d calls are running: %w", name, limit, errdefs.ErrResourceExhausted)
	}
	return counter, nil
}
