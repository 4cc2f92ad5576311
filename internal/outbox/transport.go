package outbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/larkshim/lark/internal/rawio"
)

// ttrpcTransport sends events to containerd's own ttrpc socket.
type ttrpcTransport struct {
	path   string
	conn   net.Conn
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
	// A server that reads nothing must not hold the write up for longer than the
	// attempt may take: ttrpc's write heeds no context.
	if deadline, ok := ctx.Deadline(); ok {
		if err := t.conn.SetWriteDeadline(deadline); err != nil {
			t.drop()
			return err
		}
	}
	_, err := events.NewTTRPCEventsClient(t.client).Forward(ctx, req)
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok && st.Code() != codes.DeadlineExceeded {
		return errgrpc.ToNative(err) // an answer: the connection is good
	}
	t.drop()
	// The write's deadline is the attempt's, and may be noticed a moment before
	// it. A status of DeadlineExceeded may be the server's own verdict on the
	// deadline that the request carries; it tells no more than silence.
	if status.Code(err) == codes.DeadlineExceeded || errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
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
	t.conn, t.client = direct, ttrpc.NewClient(direct)
	return nil
}

// undated is an error that is not context.DeadlineExceeded, whatever it wraps.
type undated struct{ err error }

func (u undated) Error() string { return u.err.Error() }

func (t *ttrpcTransport) drop() {
	if t.client != nil {
		_ = t.client.Close()
		t.conn, t.client = nil, nil
	}
}

// Close must not be called while Send runs.
func (t *ttrpcTransport) Close() error {
	t.drop()
	return nil
}
