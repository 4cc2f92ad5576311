package shimclient

// The event service that a shim forwards its events to: the daemon's ttrpc socket.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	forward "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/order/taskevents"
)

// Event is one event as a shim sent it.
type Event struct {
	Topic string
	// Namespace is what the envelope says, Payload the event itself, as it was sent.
	Namespace string
	Payload   *anypb.Any
	// Task is what a task's event says, of kind order.Other for any other event.
	Task order.Event
}

// Sink serves the event service on a socket of its own. Events are handed to its
// function one at a time, in the order in which they were received; the call that
// brought one is answered when the function has returned.
type Sink struct {
	path   string
	server *ttrpc.Server
	done   chan struct{}

	mu  sync.Mutex // orders the events and guards fn
	fn  func(Event)
	log *slog.Logger
}

// NewSink serves on a new socket in the Home. fn must not block for long: it holds the
// shim's events up.
func NewSink(h *Home, log *slog.Logger, fn func(Event)) (*Sink, error) {
	path := filepath.Join(h.Dir, "events.sock")
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s is too long for a socket: %w", path, errdefs.ErrInvalidArgument)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for events: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s := &Sink{path: path, server: server, done: make(chan struct{}), fn: fn, log: log}
	forward.RegisterTTRPCEventsService(server, s)
	go func() {
		defer close(s.done)
		if err := server.Serve(context.Background(), l); err != nil && !errors.Is(err, ttrpc.ErrServerClosed) {
			log.Error("the event service ended", "error", err)
		}
	}()
	return s, nil
}

// Address is what TTRPC_ADDRESS is set to. Shims take a bare path.
func (s *Sink) Address() string { return s.path }

// Forward is the event service's one method. An event that cannot be read is logged
// and answered as received: a shim could do nothing but send it for ever.
func (s *Sink) Forward(_ context.Context, r *forward.ForwardRequest) (*emptypb.Empty, error) {
	env := r.GetEnvelope()
	event, err := taskevents.FromAny(env.GetEvent(), env.GetTimestamp())
	if err != nil {
		s.log.Warn("an event cannot be read", "topic", env.GetTopic(), "error", err)
		return &emptypb.Empty{}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fn(Event{Topic: env.GetTopic(), Namespace: env.GetNamespace(), Payload: env.GetEvent(), Task: event})
	return &emptypb.Empty{}, nil
}

// Close ends the service; no function call is in flight afterwards.
func (s *Sink) Close() error {
	err := s.server.Close()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fn = func(Event) {}
	return err
}
