package taskapi

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// service answers two methods; calling another is a nil pointer's panic.
type service struct{ task.TTRPCTaskService }

func (service) State(_ context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	return &task.StateResponse{ID: r.ID, ExecID: r.ExecID}, nil
}

func (service) Kill(context.Context, *task.KillRequest) (*emptypb.Empty, error) {
	return nil, errors.New("refused")
}

func TestBothNamesAnswer(t *testing.T) {
	srv, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	Register(srv, service{})
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(context.Background(), l) }()
	defer func() { srv.Close(); <-ended }()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	for _, name := range []string{V2, V3} {
		var resp task.StateResponse
		if err := client.Call(t.Context(), name, "State", &task.StateRequest{ID: "c", ExecID: "x"}, &resp); err != nil || resp.ID != "c" || resp.ExecID != "x" {
			t.Errorf("%s: State = %v, %v", name, &resp, err)
		}
		if err := client.Call(t.Context(), name, "Kill", &task.KillRequest{}, &emptypb.Empty{}); err == nil {
			t.Errorf("%s: the handler's error was lost", name)
		}
	}
}

// The table has every method that the interface has, under its own name.
func TestNoMethodIsForgotten(t *testing.T) {
	iface := reflect.TypeFor[task.TTRPCTaskService]()
	table := methods(service{})
	for i := range iface.NumMethod() {
		if name := iface.Method(i).Name; table[name] == nil {
			t.Errorf("%s is not served", name)
		}
	}
	if len(table) != iface.NumMethod() {
		t.Errorf("%d methods served of %d", len(table), iface.NumMethod())
	}
}
