package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/routine"
)

// Event is something that containerd is to be told.
type Event struct {
	// Kind says what may be dropped, and which events of an exec belong together.
	Kind Kind
	// Topic is containerd's, such as /tasks/exit.
	Topic string
	// Message is one of containerd's api/events. Append encodes it, so that the
	// caller may do with it what it likes afterwards.
	Message proto.Message
	// At is when it happened; the time of Append if zero.
	At time.Time
	// Container is its id, and Exec that of the exec that the event is about:
	// empty for all that is about init.
	Container, Exec string
}

// payload is an event ready to be sent.
type payload struct {
	topic string
	at    time.Time
	event *anypb.Any
}

// Transport brings one event to containerd. The outbox calls it from one
// goroutine at a time.
type Transport interface {
	// Send returns nil when containerd has taken the event. It connects when
	// there is no connection, and ends when ctx does. After context.
	// DeadlineExceeded it must not use the same connection again, since an answer
	// may still come on it.
	Send(ctx context.Context, req *events.ForwardRequest) error
	// Close ends the connection.
	Close() error
}

// Config is what an outbox needs.
type Config struct {
	Namespace string // containerd's, which every event carries
	Transport Transport
	Log       *slog.Logger
	// Limit replaces MaxDroppable, where it is not zero.
	Limit int
}

// Outbox is the queue and the goroutine that empties it. All methods may be
// called by anybody at any time.
type Outbox struct {
	namespace string
	transport Transport
	log       *slog.Logger

	wake chan struct{} // holds one token when there is something to send
	quit context.CancelFunc
	done chan struct{} // closed when the goroutine has ended

	sent *entry // the last that containerd has taken; the goroutine's own

	mu     sync.Mutex
	queue  *queue
	closed bool
	taken  uint64          // events that containerd has taken or refused for good
	empty  []chan struct{} // Drains to be told when the queue is empty
	// paced are those whom Pace keeps waiting, the first first; moved is when the
	// queue last moved: when containerd took an event, or the first came into an
	// empty queue. It is zero while attempts fail.
	paced []chan struct{}
	moved time.Time
}

// New makes an outbox and starts its goroutine, which rests while there is
// nothing to send. The caller must Close it.
func New(c Config) *Outbox {
	if c.Limit == 0 {
		c.Limit = MaxDroppable
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	ctx, quit := context.WithCancel(context.Background())
	o := &Outbox{
		namespace: c.Namespace,
		transport: c.Transport,
		log:       c.Log,
		wake:      make(chan struct{}, 1),
		quit:      quit,
		done:      make(chan struct{}),
		queue:     newQueue(c.Limit),
	}
	routine.Keep(c.Log, "outbox", func() { o.run(ctx) }, routine.DebtFunc(func() { close(o.done) }))
	return o
}

// Append puts the event at the end of the queue. It does not block, and it
// cannot fail: an event that cannot be encoded, which is a programming error, and
// one that comes after Close are counted as dropped and logged.
func (o *Outbox) Append(e Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	data, err := proto.Marshal(e.Message)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && o.closed {
		err = errors.New("the outbox is closed")
	}
	if err != nil {
		o.queue.dropped[e.Kind]++
		o.log.Error("event dropped", "topic", e.Topic, "container", e.Container, "exec", e.Exec, "error", err)
		return
	}
	if o.queue.len() == 0 {
		o.moved = time.Now()
	}
	o.queue.push(e.Kind, execKey{e.Container, e.Exec}, &payload{
		topic: e.Topic,
		at:    e.At,
		// The type's name without a host, as containerd's typeurl has it.
		event: &anypb.Any{TypeUrl: string(e.Message.ProtoReflect().Descriptor().FullName()), Value: data},
	})
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Drain waits until containerd has taken all that is queued, or ctx ends; then
// its error says how much is left. Events may still be appended, and are waited
// for as well.
func (o *Outbox) Drain(ctx context.Context) error {
	o.mu.Lock()
	if o.queue.len() == 0 {
		o.mu.Unlock()
		return nil
	}
	empty := make(chan struct{})
	o.empty = append(o.empty, empty)
	o.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d events not delivered: %w", o.Stats().Queued, ctx.Err())
	case <-o.done:
		return fmt.Errorf("%d events not delivered: the outbox was closed: %w", o.Stats().Queued, errdefs.ErrUnavailable)
	}
}

// Close ends the goroutine and the connection. What is queued is lost, and
// logged: call Drain first.
func (o *Outbox) Close() {
	o.mu.Lock()
	first := !o.closed
	o.closed = true
	o.mu.Unlock()
	o.quit()
	<-o.done
	if !first {
		return
	}
	_ = o.transport.Close()
	if s := o.Stats(); s.Queued > 0 || len(s.Dropped) > 0 {
		o.log.Warn("events were not delivered", "queued", s.Queued, "dropped", s.Dropped)
	}
}

// Stats is what an outbox holds and what it has dropped.
type Stats struct {
	Queued  int             // the event on its way included
	Dropped map[Kind]uint64 // since the start; kinds without drops are missing
}

// Stats returns the present figures.
func (o *Outbox) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := Stats{Queued: o.queue.len(), Dropped: map[Kind]uint64{}}
	for k, n := range o.queue.dropped {
		if n > 0 {
			s.Dropped[Kind(k)] = n
		}
	}
	return s
}

// next returns the head of the queue; nil when it is empty, in which case those
// who wait for that are told.
func (o *Outbox) next() *entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.queue.next()
	if e == nil {
		for _, c := range o.empty {
			close(c)
		}
		o.empty = nil
	}
	return e
}

func (o *Outbox) request(p *payload) *events.ForwardRequest {
	return &events.ForwardRequest{Envelope: &types.Envelope{
		Timestamp: timestamppb.New(p.at),
		Namespace: o.namespace,
		Topic:     p.topic,
		Event:     p.event,
	}}
}

// run sends the head until containerd has taken it, then the next.
func (o *Outbox) run(ctx context.Context) {
	var t trouble
	for {
		e := o.next()
		if e == nil {
			select {
			case <-o.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		failpoint.Step("outbox: next")
		err := o.send(ctx, e, t.patience())
		if ctx.Err() != nil && err != nil {
			return
		}
		failpoint.Step("outbox: sent")
		if err == nil {
			o.settle(&t)
			continue
		}
		o.failed(&t, e, err)
		if !pause(ctx, t.backoff()) {
			return
		}
	}
}

// send brings the head to containerd, unless it was brought before and run
// panicked since.
func (o *Outbox) send(ctx context.Context, e *entry, patience time.Duration) error {
	if o.sent == e {
		return nil
	}
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := o.transport.Send(attempt, o.request(e.payload))
	if err == nil {
		o.sent = e
	}
	return err
}

// settle takes the delivered head off the queue, and reports the end of an
// outage.
func (o *Outbox) settle(t *trouble) {
	o.delivered()
	if t.logged {
		s := o.Stats()
		o.log.Info("events reach containerd again", "after", time.Since(t.since).Round(time.Millisecond), "queued", s.Queued, "dropped", s.Dropped)
	}
	*t = trouble{}
}

func (o *Outbox) delivered() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue.done()
	o.taken++
	o.moved = time.Now()
	o.admit()
}

// failed takes note of a failed attempt, and gives up on an event that the server
// calls invalid, if it may be dropped.
func (o *Outbox) failed(t *trouble, e *entry, err error) {
	t.add(err)
	o.stands()
	if t.failures == 2 { // one is an everyday matter: containerd was restarted
		t.logged = true
		o.log.Warn("events do not reach containerd and are kept", "error", err, "topic", e.payload.topic)
	}
	if t.refusals >= maxRefusals && e.kind >= ExecAdded {
		o.log.Error("event dropped: containerd calls it invalid", "topic", e.payload.topic, "container", e.key.container, "exec", e.key.exec, "error", err)
		o.refused()
		t.refusals = 0
	}
}

// stands notes that the queue does not move.
func (o *Outbox) stands() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.moved = time.Time{}
}

// refused drops the head.
func (o *Outbox) refused() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue.refuse()
	o.taken++
	o.admit()
}

// trouble is what went wrong since the last success.
type trouble struct {
	failures int
	silences int // attempts without an answer
	refusals int // in a row, of the event at the head
	since    time.Time
	logged   bool
}

func (t *trouble) add(err error) {
	if t.failures == 0 {
		t.since = time.Now()
	}
	t.failures++
	if errors.Is(err, context.DeadlineExceeded) {
		t.silences++
	}
	if errdefs.IsInvalidArgument(err) {
		t.refusals++
	} else {
		t.refusals = 0
	}
}

// patience is how long the next attempt may take.
func (t *trouble) patience() time.Duration { return doubled(firstAttempt, t.silences, longestAttempt) }

// backoff is how long to wait before it.
func (t *trouble) backoff() time.Duration {
	if t.failures < 2 {
		return 0
	}
	return doubled(minBackoff, t.failures-2, maxBackoff)
}

func doubled(d time.Duration, times int, limit time.Duration) time.Duration {
	for range times {
		if d *= 2; d >= limit {
			return limit
		}
	}
	return d
}

// pause is false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
