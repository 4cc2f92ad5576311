package outbox

import (
	"context"
	"time"
)

// DrainWhileMoving is Drain for as long as containerd takes events, however slowly.
// It gives up when none was taken for the time quiet, or a little longer.
func (o *Outbox) DrainWhileMoving(quiet time.Duration) error {
	for {
		before := o.takenSoFar()
		ctx, cancel := context.WithTimeout(context.Background(), quiet)
		err := o.Drain(ctx)
		silent := ctx.Err() != nil
		cancel()
		if err == nil || !silent || o.takenSoFar() == before {
			return err
		}
	}
}

func (o *Outbox) takenSoFar() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.taken
}
