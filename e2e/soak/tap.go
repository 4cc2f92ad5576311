package soak

// The tap stands between the shims and containerd's event service. What a shim
// sends is handed on to containerd and, once containerd has taken it, counts as
// told. While containerd is dead, so is the tap: its socket is closed, and its
// connections. What is judged here is the shim's promise alone, whatever
// containerd's clients get to see of it: everything is told, in order, once; and
// what may have got lost on the way is repeated before anything else is said.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	forward "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/order/taskevents"
)

// tap serves the event service at path and calls that of containerd.
type tap struct {
	path, containerd string
	// group names the shim that speaks of a container.
	group func(container string) string
	// told is given each event that containerd has taken, in order.
	told    func(order.Event)
	problem func(format string, args ...any)

	server *ttrpc.Server
	ended  chan struct{}

	mu       sync.Mutex // one event at a time: that is the order
	client   *ttrpc.Client
	away     bool              // containerd is dead
	lastTold map[string][]byte // by shim, what it told last
	refused  map[string][]byte // by shim, what it could not get through
	repeated int
	failed   int
}

func newTap(path, containerd string) *tap {
	return &tap{path: path, containerd: containerd, lastTold: map[string][]byte{}, refused: map[string][]byte{}}
}

// open begins to serve.
func (t *tap) open() error {
	l, err := net.Listen("unix", t.path)
	if err != nil {
		return err
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	forward.RegisterTTRPCEventsService(server, t)
	ended := make(chan struct{})
	t.server, t.ended = server, ended
	t.mu.Lock()
	t.away = false
	t.mu.Unlock()
	go func() {
		defer close(ended)
		if err := server.Serve(context.Background(), l); err != nil && !errors.Is(err, ttrpc.ErrServerClosed) {
			t.problem("the tap of the events ended: %v", err)
		}
	}()
	return nil
}

// close ends the service and all its connections, as a death of containerd does.
func (t *tap) close() error {
	err := t.server.Close()
	<-t.ended
	t.mu.Lock()
	defer t.mu.Unlock()
	t.away = true
	t.drop()
	return errors.Join(err, ignoreNotExist(os.Remove(t.path)))
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (t *tap) drop() {
	if t.client != nil {
		_ = t.client.Close()
		t.client = nil
	}
}

// forget is told of a shim's death: it will not repeat what it could not tell.
func (t *tap) forget(group string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.refused, group)
}

// Forward is the event service's one method.
func (t *tap) Forward(ctx context.Context, r *forward.ForwardRequest) (*emptypb.Empty, error) {
	env := r.GetEnvelope()
	e, err := taskevents.FromAny(env.GetEvent(), env.GetTimestamp())
	if err != nil {
		t.problem("an event of topic %s cannot be read: %v", env.GetTopic(), err)
		return nil, errgrpc.ToGRPC(fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err))
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(env)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	shim := t.group(e.Container)
	if want, ok := t.refused[shim]; ok && string(want) != string(raw) {
		t.problem("after the shim of %s could not tell an event, it went on with another: %s of %s/%s", shim, e.Kind, e.Container, e.Exec)
		delete(t.refused, shim)
	}
	if err := t.pass(ctx, r); err != nil {
		t.failed++
		t.refused[shim] = raw
		return nil, errgrpc.ToGRPC(fmt.Errorf("containerd: %w: %w", errdefs.ErrUnavailable, err))
	}
	delete(t.refused, shim)
	if string(t.lastTold[shim]) == string(raw) {
		t.repeated++ // its answer was lost
		return &emptypb.Empty{}, nil
	}
	t.lastTold[shim] = raw
	t.told(e)
	return &emptypb.Empty{}, nil
}

// pass calls containerd.
func (t *tap) pass(ctx context.Context, r *forward.ForwardRequest) error {
	if t.away {
		return errdefs.ErrUnavailable
	}
	if t.client == nil {
		conn, err := net.Dial("unix", t.containerd)
		if err != nil {
			return err
		}
		t.client = ttrpc.NewClient(conn)
	}
	_, err := forward.NewTTRPCEventsClient(t.client).Forward(ctx, r)
	if err != nil {
		t.drop()
	}
	return err
}
