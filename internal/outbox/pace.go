package outbox

// pace.go keeps a burst of execs from running ahead of containerd.
//
// With GOMAXPROCS=1 goroutines that are always ready to run, each of which forks and holds
// the P meanwhile, keep the poller from being looked at (but every 10 ms, by the runtime's
// monitor thread), and so the answer to the event on its way from being seen. A hundred
// execs at once with a fast runtime left 5,900 of 6,000 events in the queue until the last
// exec was over; a few seconds more and events of execs would have been dropped, with a
// containerd that took each at once. So whoever is about to add an exec waits until the
// queue is short again.

import (
	"context"
	"slices"
	"time"
)

// Pace waits while events are queued that containerd is taking; it is called
// before something is begun that will bring new ones. It returns when the queue is
// short, when ctx has ended, when containerd has taken nothing for 100 ms or the
// last attempt has failed, and after ten seconds in any case: an absent or a hung
// containerd is not felt.
func (o *Outbox) Pace(ctx context.Context) {
	turn := o.queueUp()
	if turn == nil {
		return
	}
	begun := time.Now()
	timer := time.NewTimer(paceTime)
	defer timer.Stop()
	for {
		select {
		case <-turn:
			return
		case <-timer.C:
			if left := paceTime - o.still(); left > 0 && time.Since(begun) < paceLongest {
				timer.Reset(left)
				continue
			}
		case <-ctx.Done():
		case <-o.done:
		}
		break
	}
	o.leave(turn)
}

// still is for how long containerd has taken nothing.
func (o *Outbox) still() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Since(o.moved)
}

// queueUp enters the caller among those who wait; nil if there is nothing to wait for.
func (o *Outbox) queueUp() chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	// Who comes when others wait does not overtake them.
	if o.queue.len() < paceAt && len(o.paced) == 0 || o.closed || time.Since(o.moved) >= paceTime {
		return nil
	}
	turn := make(chan struct{})
	o.paced = append(o.paced, turn)
	return turn
}

// leave takes out one who waits no longer.
func (o *Outbox) leave(turn chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.Index(o.paced, turn); i >= 0 {
		o.paced = slices.Delete(o.paced, i, i+1)
	}
}

// admit lets the first of those who wait go, if the queue is short: one for each event that
// left it, so that they do not all come at once; and all, when it is empty, since no
// further event would leave it for them. The caller holds mu.
func (o *Outbox) admit() {
	for len(o.paced) > 0 && o.queue.len() < paceAt {
		close(o.paced[0])
		if o.paced = o.paced[1:]; o.queue.len() > 0 {
			break
		}
	}
	if len(o.paced) == 0 {
		o.paced = nil
	}
}
