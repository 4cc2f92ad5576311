package bench

import (
	"context"
	"errors"
	"sync"
	"time"
)

// batch is what a number of equal operations took.
type batch struct {
	Wall time.Duration   // of all together
	Each []time.Duration // of one
	// Slow is true when the time was up before all were begun: Each is shorter then.
	Slow bool
}

// runBatch runs op n times, parallel at once, and times each. It stops at the first
// error, and begins no more when batchBudget is spent.
func runBatch(ctx context.Context, n, parallel int, op func(ctx context.Context, i int) error) (batch, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	each := make([]time.Duration, n)
	out := batch{Each: each}
	next := make(chan int)
	var all sync.WaitGroup
	begin := time.Now()
	for range min(parallel, n) {
		all.Go(func() {
			for i := range next {
				t := time.Now()
				if err := op(ctx, i); err != nil {
					fail(err)
				}
				each[i] = time.Since(t)
			}
		})
	}
	for i := range n {
		if out.Slow = time.Since(begin) > batchBudget; out.Slow {
			out.Each = out.Each[:i]
		}
		if out.Slow || ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	all.Wait()
	out.Wall = time.Since(begin)
	if ctx.Err() != nil {
		return out, errors.Join(context.Cause(ctx), ctx.Err())
	}
	return out, nil
}

// hopeless is true when not even half of n could be begun in the time, or when what was
// begun took half as long again: more at once would take no less. A busy machine alone
// does not make a batch that slow.
func (b batch) hopeless(n int) bool {
	return b.Slow && 2*len(b.Each) < n || b.Wall > batchBudget*3/2
}

// per is the wall time of one operation among the others.
func (b batch) per() time.Duration { return b.Wall / time.Duration(max(1, len(b.Each))) }
