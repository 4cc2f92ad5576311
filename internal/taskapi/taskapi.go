// Package taskapi serves containerd's task API under both of its names.
//
// The messages of versions 2 and 3 are the same, byte for byte; only the name of
// the service differs. The Go package of version 3 drags gRPC and net/http into
// the binary (63 packages, 4.8 MB), so only that of version 2 is imported, and the
// method table of version 3 is written out here.
package taskapi

import (
	"context"
	"fmt"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

// The names of the service. containerd 1.6 and 1.7 call V2, 2.x calls V3.
const (
	V2 = "containerd.task.v2.Task"
	V3 = "containerd.task.v3.Task"
)

// Handler answers a call with a message, given the bytes of the request.
type Handler func(ctx context.Context, request []byte) (proto.Message, error)

// Methods are the service's methods by name, the same under both of its names.
func Methods(s task.TTRPCTaskService) map[string]Handler {
	return map[string]Handler{
		"State":      method(s.State),
		"Create":     method(s.Create),
		"Start":      method(s.Start),
		"Delete":     method(s.Delete),
		"Pids":       method(s.Pids),
		"Pause":      method(s.Pause),
		"Resume":     method(s.Resume),
		"Checkpoint": method(s.Checkpoint),
		"Kill":       method(s.Kill),
		"Exec":       method(s.Exec),
		"ResizePty":  method(s.ResizePty),
		"CloseIO":    method(s.CloseIO),
		"Update":     method(s.Update),
		"Wait":       method(s.Wait),
		"Stats":      method(s.Stats),
		"Connect":    method(s.Connect),
		"Shutdown":   method(s.Shutdown),
	}
}

// message is a *T that is a message.
type message[T any] interface {
	*T
	proto.Message
}

// method makes a method of the service a Handler. A request that is no message is
// InvalidArgument.
func method[Req, Resp any, R message[Req], A message[Resp]](handle func(context.Context, R) (A, error)) Handler {
	return func(ctx context.Context, request []byte) (proto.Message, error) {
		req := R(new(Req))
		if err := proto.Unmarshal(request, req); err != nil {
			return nil, fmt.Errorf("request: %w: %w", errdefs.ErrInvalidArgument, err)
		}
		resp, err := handle(ctx, req)
		if err != nil {
			return nil, err // not a nil *Resp in a Message
		}
		return resp, nil
	}
}

// connKey is the key of WithConn.
type connKey struct{}

// WithConn is the context of the calls of a connection: a number that is not zero and
// that no other has.
func WithConn(ctx context.Context, conn uint64) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// Conn is the connection of a call, zero if it has none.
func Conn(ctx context.Context) uint64 {
	conn, _ := ctx.Value(connKey{}).(uint64)
	return conn
}
