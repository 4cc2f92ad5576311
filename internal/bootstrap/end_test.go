package bootstrap

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	api "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/services/ttrpc/events/v1"

	"github.com/larkshim/lark/internal/outbox"
)

// slowTransport takes an event in 200 ms.
type slowTransport struct{ topics []string }

func (s *slowTransport) Send(_ context.Context, r *events.ForwardRequest) error {
	time.Sleep(200 * time.Millisecond)
	s.topics = append(s.topics, r.Envelope.Topic)
	return nil
}

func (s *slowTransport) Close() error { return nil }

// F15: the end of a shim loses nothing while containerd takes events slowly.
func TestF15EndWaitsForASlowContainerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := &slowTransport{}
		p := &process{log: slog.New(slog.DiscardHandler), outbox: outbox.New(outbox.Config{Namespace: "ns", Transport: transport})}
		const notes = 300 // a minute's worth
		for range notes {
			p.outbox.Append(outbox.Event{Kind: outbox.Note, Topic: "/tasks/paused", Message: &api.TaskPaused{ContainerID: "c"}, Container: "c"})
		}
		p.outbox.Append(outbox.Event{Kind: outbox.Exit, Topic: "/tasks/exit", Message: &api.TaskExit{ContainerID: "c"}, Container: "c"})
		p.outbox.Append(outbox.Event{Kind: outbox.Delete, Topic: "/tasks/delete", Message: &api.TaskDelete{ContainerID: "c"}, Container: "c"})
		if err := p.drain(); err != nil {
			t.Error(err)
		}
		p.outbox.Close()
		if n := len(transport.topics); n != notes+2 || transport.topics[n-1] != "/tasks/delete" {
			t.Errorf("%d events were taken, the last is %q", n, transport.topics[n-1])
		}
	})
}
