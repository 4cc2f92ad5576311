package outbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/larkshim/lark/internal/rawio"
	"github.com/larkshim/lark/internal/ttrpc"
)

// eventsService is containerd's service that takes the events of shims.
const eventsService = "containerd.services.events.ttrpc.v1.Events"

// ttrpcTransport sends events to containerd's own ttrpc socket.
type ttrpcTransport struct {
	path   string
	client *ttrpc.Client // nil while there is no connection
}

// Dial returns the transport to the socket at address: a path, with or without
// unix:// before it (containerd's TTRPC_ADDRESS has none). It connects when it
// first has something to send.
func Dial(address string) Transport {
	return &ttrpcTransport{path: strings.TrimPrefix(address, "unix://")}
}

func (t *ttrpcTransport) Send(ctx context.Context, req *events.ForwardRequest) error {
	if err := t.connect(ctx); err != nil {
		return err
	}
	b, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("events: %w: %w", errdefs.ErrInvalidArgument, err)
	}
	_, err = t.client.Call(ctx, eventsService, "Forward", b)
	if err == nil {
		return nil
	}
	st, answered := errors.AsType[*ttrpc.Status](err)
	if answered && st.Code != ttrpc.DeadlineExceeded || errors.Is(err, errdefs.ErrResourceExhausted) {
		return err // an answer, or nothing was sent: the connection is good
	}
	t.drop()
	// A status of DeadlineExceeded may be the server's own verdict on the deadline
	// that the request carries; it tells no more than silence.
	if answered || ctx.Err() != nil {
		return fmt.Errorf("no answer: %w", errors.Join(context.Cause(ctx), context.DeadlineExceeded))
	}
	return err
}

func (t *ttrpcTransport) connect(ctx context.Context) error {
	if t.client != nil {
		return nil
	}
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "unix", t.path)
	if err != nil {
		// Nothing was sent, so that however it failed it is no silence, after
		// which the patience would grow.
		return fmt.Errorf("events: %w", undated{err})
	}
	direct, err := rawio.New(conn)
	if err != nil {
		conn.Close()
		return fmt.Errorf("events: %w", err)
	}
	t.client = ttrpc.NewClient(direct, nil)
	return nil
}

// undated is an error that is not context.DeadlineExceeded, whatever it wraps.
type undated struct{ err error }

func (u undated) Error() string { return u.err.Error() }

func (t *ttrpcTransport) drop() {
	if t.client != nil {
		_ = t.client.Close()
		t.client = nil
	}
}

// Close must not be called while Send runs.
func (t *ttrpcTransport) Close() error {
	t.drop()
	return nil
}
