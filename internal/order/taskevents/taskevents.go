// Package taskevents turns containerd's task event messages into the events
// that the order checker judges. It is apart from package order so that the
// checker itself needs no protocol buffers.
package taskevents

import (
	"fmt"

	eventsapi "github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/larkshim/lark/internal/order"
)

// FromMessage gives the order event of a task event message. The second value
// is false for a message that is not one of a task's events; the event is then
// of kind order.Other.
func FromMessage(m proto.Message) (order.Event, bool) {
	e := order.Event{}
	switch m := m.(type) {
	case *eventsapi.TaskCreate:
		e = order.Event{Kind: order.Created, Container: m.ContainerID, Pid: m.Pid}
	case *eventsapi.TaskStart:
		e = order.Event{Kind: order.Started, Container: m.ContainerID, Pid: m.Pid}
	case *eventsapi.TaskExit:
		e = order.Event{Kind: order.Exited, Container: m.ContainerID, Exec: m.ID, Pid: m.Pid, Status: m.ExitStatus}
		setTime(&e, m.ExitedAt)
	case *eventsapi.TaskDelete:
		e = order.Event{Kind: order.Deleted, Container: m.ContainerID, Exec: m.ID, Pid: m.Pid, Status: m.ExitStatus}
		setTime(&e, m.ExitedAt)
	case *eventsapi.TaskExecAdded:
		e = order.Event{Kind: order.ExecAdded, Container: m.ContainerID, Exec: m.ExecID}
	case *eventsapi.TaskExecStarted:
		e = order.Event{Kind: order.ExecStarted, Container: m.ContainerID, Exec: m.ExecID, Pid: m.Pid}
	case *eventsapi.TaskOOM:
		e = order.Event{Kind: order.OOM, Container: m.ContainerID}
	case *eventsapi.TaskPaused:
		e = order.Event{Kind: order.Paused, Container: m.ContainerID}
	case *eventsapi.TaskResumed:
		e = order.Event{Kind: order.Resumed, Container: m.ContainerID}
	default:
		return e, false
	}
	if e.Exec == e.Container {
		e.Exec = ""
	}
	return e, true
}

// setTime leaves the zero time where the message has none, so that a missing
// time is not taken for 1970.
func setTime(e *order.Event, at *timestamppb.Timestamp) {
	if at != nil {
		e.At = at.AsTime()
	}
}

// FromAny decodes the payload of an event's envelope. sent is the envelope's
// timestamp, nil where there is none. A payload of a type that is not a task
// event, or not known here at all, is of kind order.Other; an error means that
// a task event's bytes could not be read.
func FromAny(payload *anypb.Any, sent *timestamppb.Timestamp) (order.Event, error) {
	m := messageFor(payload.GetTypeUrl())
	if m == nil {
		return order.Event{Kind: order.Other}, nil
	}
	if err := proto.Unmarshal(payload.GetValue(), m); err != nil {
		return order.Event{Kind: order.Other}, fmt.Errorf("decoding %s: %w", payload.GetTypeUrl(), err)
	}
	e, _ := FromMessage(m)
	if sent != nil {
		e.Sent = sent.AsTime()
	}
	return e, nil
}

// messageFor gives an empty message for a type URL. containerd writes the bare
// message name, others put a host before it; the name is what counts.
func messageFor(url string) proto.Message {
	name := (&anypb.Any{TypeUrl: url}).MessageName()
	for _, m := range []proto.Message{
		&eventsapi.TaskCreate{}, &eventsapi.TaskStart{}, &eventsapi.TaskExit{}, &eventsapi.TaskDelete{},
		&eventsapi.TaskExecAdded{}, &eventsapi.TaskExecStarted{}, &eventsapi.TaskOOM{},
		&eventsapi.TaskPaused{}, &eventsapi.TaskResumed{},
	} {
		if m.ProtoReflect().Descriptor().FullName() == name {
			return m
		}
	}
	return nil
}
