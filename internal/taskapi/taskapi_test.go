package taskapi

import (
	"context"
	"errors"
	"reflect"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// errRefused is what the service's Kill returns.
var errRefused = errors.New("refused")

// service answers two methods; calling another is a nil pointer's panic.
type service struct{ task.TTRPCTaskService }

func (service) State(_ context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	return &task.StateResponse{ID: r.ID, ExecID: r.ExecID}, nil
}

func (service) Kill(context.Context, *task.KillRequest) (*emptypb.Empty, error) {
	return nil, errRefused
}

func TestMethods(t *testing.T) {
	table := Methods(service{})
	request, err := proto.Marshal(&task.StateRequest{ID: "c", ExecID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := table["State"](t.Context(), request)
	if resp, ok := answer.(*task.StateResponse); !ok || err != nil || resp.ID != "c" || resp.ExecID != "x" {
		t.Errorf("State = %v, %v", answer, err)
	}
	if _, err := table["Kill"](t.Context(), nil); err != errRefused {
		t.Errorf("the handler's error is %v", err)
	}
	if _, err := table["State"](t.Context(), []byte{0xff}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a request that is no message: %v", err)
	}
}

// The table has every method that the interface has, under its own name.
func TestNoMethodIsForgotten(t *testing.T) {
	iface := reflect.TypeFor[task.TTRPCTaskService]()
	table := Methods(service{})
	for i := range iface.NumMethod() {
		if name := iface.Method(i).Name; table[name] == nil {
			t.Errorf("%s is not served", name)
		}
	}
	if len(table) != iface.NumMethod() {
		t.Errorf("%d methods served of %d", len(table), iface.NumMethod())
	}
}
