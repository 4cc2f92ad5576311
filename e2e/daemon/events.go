package daemon

// containerd's event stream, in the order in which it arrives.

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/order/taskevents"
)

const (
	readyTopic = "/lark/ready"
	// readyEvery: containerd does not say when a subscription stands, so a
	// marker is published again and again until it comes back.
	readyEvery = 20 * time.Millisecond
)

// Envelope is one event as containerd handed it on.
type Envelope struct {
	Topic string
	Event order.Event
	Raw   *types.Envelope
}

// Subscription is the events of one namespace since Subscribe returned. Its
// methods may be called from any goroutine.
type Subscription struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	events  []Envelope
	changed chan struct{} // closed and made anew with every event and at the end
	err     error         // why the stream ended; set before done is closed
	observe func(Envelope)
}

// Subscribe returns when the subscription stands: no later event is missed.
// observe, when not nil, is called with each event in arrival order, by one
// goroutine. The subscription ends with ctx, Close, or the daemon.
func (c *Client) Subscribe(ctx context.Context, observe func(Envelope)) (*Subscription, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.Events.Subscribe(c.In(ctx), &eventsapi.SubscribeRequest{Filters: []string{"namespace==" + c.ns}})
	if err != nil {
		cancel()
		return nil, errgrpc.ToNative(err)
	}
	s := &Subscription{cancel: cancel, done: make(chan struct{}), changed: make(chan struct{}), observe: observe}
	ready := make(chan struct{})
	marker := readyTopic + "/t" + strconv.FormatInt(time.Now().UnixNano(), 36)
	go s.read(stream, marker, ready)
	if err := c.announce(ctx, marker, s, ready); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// announce publishes the marker until it has come back.
func (c *Client) announce(ctx context.Context, marker string, s *Subscription, ready <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, serveBound)
	defer cancel()
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		_, err := c.Events.Publish(c.In(ctx), &eventsapi.PublishRequest{Topic: marker, Event: &anypb.Any{TypeUrl: "lark.Ready"}})
		if err != nil {
			return fmt.Errorf("publishing a marker: %w", errgrpc.ToNative(err))
		}
		select {
		case <-ready:
			return nil
		case <-s.done:
			return fmt.Errorf("the event stream ended at once: %w", s.err)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (s *Subscription) read(stream eventsapi.Events_SubscribeClient, marker string, ready chan<- struct{}) {
	defer close(s.done)
	for isReady := false; ; {
		env, err := stream.Recv()
		if err != nil {
			s.mu.Lock()
			s.err = err
			close(s.changed)
			s.changed = make(chan struct{})
			s.mu.Unlock()
			return
		}
		if env.Topic == marker {
			if !isReady {
				isReady = true
				close(ready)
			}
			continue
		}
		s.take(env)
	}
}

// take decodes one event and wakes who waits. An event that cannot be decoded
// is kept as order.Other, its topic says what it was to be.
func (s *Subscription) take(env *types.Envelope) {
	e, err := taskevents.FromAny(env.Event, env.Timestamp)
	if err != nil {
		e.Container = err.Error()
	}
	got := Envelope{Topic: env.Topic, Event: e, Raw: env}
	if s.observe != nil {
		s.observe(got)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, got)
	close(s.changed)
	s.changed = make(chan struct{})
}

// All returns the events so far, in arrival order.
func (s *Subscription) All() []Envelope {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events[:len(s.events):len(s.events)]
}

// Until waits until enough says so of the events so far. It fails when ctx
// ends or the stream does.
func (s *Subscription) Until(ctx context.Context, enough func([]Envelope) bool) error {
	for {
		s.mu.Lock()
		events, changed, err := s.events[:len(s.events):len(s.events)], s.changed, s.err
		s.mu.Unlock()
		switch {
		case enough(events):
			return nil
		case err != nil:
			return fmt.Errorf("the event stream has ended: %w", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends the subscription and returns when its last event was observed.
func (s *Subscription) Close() {
	s.cancel()
	<-s.done
}
