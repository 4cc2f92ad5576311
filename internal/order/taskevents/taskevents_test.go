package taskevents

import (
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/larkshim/lark/internal/order"
)

var at = time.Unix(1700000000, 5).UTC()

func TestEveryTaskEvent(t *testing.T) {
	stamp := timestamppb.New(at)
	for _, tt := range []struct {
		msg  proto.Message
		want order.Event
	}{
		{&eventsapi.TaskCreate{ContainerID: "c", Pid: 5}, order.Event{Kind: order.Created, Container: "c", Pid: 5}},
		{&eventsapi.TaskStart{ContainerID: "c", Pid: 5}, order.Event{Kind: order.Started, Container: "c", Pid: 5}},
		{&eventsapi.TaskExit{ContainerID: "c", ID: "c", Pid: 5, ExitStatus: 3, ExitedAt: stamp}, order.Event{Kind: order.Exited, Container: "c", Pid: 5, Status: 3, At: at}},
		{&eventsapi.TaskExit{ContainerID: "c", ID: "e", Pid: 6}, order.Event{Kind: order.Exited, Container: "c", Exec: "e", Pid: 6}},
		{&eventsapi.TaskDelete{ContainerID: "c", Pid: 5, ExitStatus: 3, ExitedAt: stamp}, order.Event{Kind: order.Deleted, Container: "c", Pid: 5, Status: 3, At: at}},
		{&eventsapi.TaskExecAdded{ContainerID: "c", ExecID: "e"}, order.Event{Kind: order.ExecAdded, Container: "c", Exec: "e"}},
		{&eventsapi.TaskExecStarted{ContainerID: "c", ExecID: "e", Pid: 6}, order.Event{Kind: order.ExecStarted, Container: "c", Exec: "e", Pid: 6}},
		{&eventsapi.TaskOOM{ContainerID: "c"}, order.Event{Kind: order.OOM, Container: "c"}},
		{&eventsapi.TaskPaused{ContainerID: "c"}, order.Event{Kind: order.Paused, Container: "c"}},
		{&eventsapi.TaskResumed{ContainerID: "c"}, order.Event{Kind: order.Resumed, Container: "c"}},
	} {
		got, ok := FromMessage(tt.msg)
		if !ok || got != tt.want {
			t.Errorf("%T: %+v, %v; want %+v", tt.msg, got, ok, tt.want)
		}
		value, err := proto.Marshal(tt.msg)
		if err != nil {
			t.Fatal(err)
		}
		name := string(tt.msg.ProtoReflect().Descriptor().FullName())
		tt.want.Sent = at
		for _, url := range []string{name, "type.googleapis.com/" + name} {
			got, err := FromAny(&anypb.Any{TypeUrl: url, Value: value}, stamp)
			if err != nil || got != tt.want {
				t.Errorf("%s: %+v, %v; want %+v", url, got, err, tt.want)
			}
		}
	}
}

func TestWhatIsNoTaskEvent(t *testing.T) {
	if e, ok := FromMessage(&emptypb.Empty{}); ok || e.Kind != order.Other {
		t.Errorf("an empty message is no task event: %+v", e)
	}
	if e, err := FromAny(&anypb.Any{TypeUrl: "containerd.events.ContainerCreate", Value: []byte{0xff}}, nil); err != nil || e.Kind != order.Other {
		t.Errorf("another topic is passed over: %+v, %v", e, err)
	}
	if _, err := FromAny(nil, nil); err != nil {
		t.Errorf("an empty envelope is passed over: %v", err)
	}
	if _, err := FromAny(&anypb.Any{TypeUrl: "containerd.events.TaskExit", Value: []byte{0xff}}, nil); err == nil {
		t.Error("a task event cut short must be an error")
	}
}
