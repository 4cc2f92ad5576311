package task

import (
	"github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"

	"github.com/larkshim/lark/internal/outbox"
	"github.com/larkshim/lark/lifecycle"
)

// topicPrefix is what containerd's task topics begin with.
const topicPrefix = "/tasks/"

// announce appends an announcement to the outbox, under c.mu.
func (c *container) announce(e lifecycle.Effect) {
	c.service.cfg.Outbox.Append(outbox.Event{
		Kind: kindOf(e), Topic: topicPrefix + e.Topic.String(), Message: c.message(e),
		At: c.stamp(e), Container: c.id, Exec: string(e.Proc),
	})
}

// outboxKind is the outbox's word for a topic; what may be dropped depends on it.
var outboxKind = [...]outbox.Kind{
	lifecycle.TopicCreate: outbox.Create, lifecycle.TopicStart: outbox.Start,
	lifecycle.TopicExecAdded: outbox.ExecAdded, lifecycle.TopicExecStarted: outbox.ExecStarted,
	lifecycle.TopicExit: outbox.Exit, lifecycle.TopicOOM: outbox.OOM,
	lifecycle.TopicPaused: outbox.Note, lifecycle.TopicResumed: outbox.Note,
	lifecycle.TopicDelete: outbox.Delete,
}

func kindOf(e lifecycle.Effect) outbox.Kind {
	if e.Topic == lifecycle.TopicExit && e.Proc != initProc {
		return outbox.ExecExit
	}
	return outboxKind[e.Topic]
}

// message is the announcement as containerd's event.
func (c *container) message(e lifecycle.Effect) proto.Message {
	pid := uint32(e.Pid)
	switch e.Topic {
	case lifecycle.TopicCreate:
		return c.createMessage(pid)
	case lifecycle.TopicStart:
		return &events.TaskStart{ContainerID: c.id, Pid: pid}
	case lifecycle.TopicExecAdded:
		return &events.TaskExecAdded{ContainerID: c.id, ExecID: string(e.Proc)}
	case lifecycle.TopicExecStarted:
		return &events.TaskExecStarted{ContainerID: c.id, ExecID: string(e.Proc), Pid: pid}
	case lifecycle.TopicExit:
		id := string(e.Proc)
		if e.Proc == initProc {
			id = c.id // containerd names init's exit by the container
		}
		return &events.TaskExit{ContainerID: c.id, ID: id, Pid: pid, ExitStatus: e.Exit.Status, ExitedAt: timestamp(e.Exit)}
	case lifecycle.TopicOOM:
		return &events.TaskOOM{ContainerID: c.id}
	case lifecycle.TopicPaused:
		return &events.TaskPaused{ContainerID: c.id}
	case lifecycle.TopicResumed:
		return &events.TaskResumed{ContainerID: c.id}
	default:
		return &events.TaskDelete{ContainerID: c.id, Pid: pid, ExitStatus: e.Exit.Status, ExitedAt: timestamp(e.Exit)}
	}
}

// createMessage repeats the request, which is not needed any more after it.
func (c *container) createMessage(pid uint32) *events.TaskCreate {
	r := c.request
	c.request = nil
	return &events.TaskCreate{
		ContainerID: r.ID, Bundle: r.Bundle, Rootfs: r.Rootfs, Checkpoint: r.Checkpoint, Pid: pid,
		IO: &events.TaskIO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
	}
}
