package bench

// Memory, threads and descriptors of shims of which ten of each kind are up, each with one
// container: at rest, right after 100 State calls, after 1,000 execs with 32 in flight, and
// after 10,000 more.

import (
	"context"
	"errors"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"
)

// The readings, in their order; they are the metrics' first words.
const (
	atRest     = "rest"
	afterState = "state"
	afterExecs = "execs"
	afterMore  = "more"
)

func memorySteps(b *bench) int {
	const perKind = 1 + 1 + workers + 1
	return b.rounds(memoryRounds) * b.columnCount(false) * perKind
}

// crew is the shims of one kind.
type crew struct {
	col    column
	stages []*stage
}

func runMemory(ctx context.Context, b *bench, rt Runtime) error {
	for range b.rounds(memoryRounds) {
		if err := b.memoryRound(ctx, rt); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) memoryRound(ctx context.Context, rt Runtime) (err error) {
	var crews []*crew
	defer func() {
		for _, c := range crews {
			for _, st := range c.stages {
				err = errors.Join(err, st.close(ctx))
			}
		}
	}()
	for _, col := range b.columns(false) {
		c := &crew{col: col}
		crews = append(crews, c)
		b.progress.doing("memory: ten shims of " + col.name)
		for range shimsUp {
			st, err := b.newRunningStage(ctx, *col.shim, rt)
			if err != nil {
				return err
			}
			c.stages = append(c.stages, st)
		}
		b.progress.step()
	}
	// The text of a file that was just written counts as private and dirty until then.
	unix.Sync()
	if err := rest(ctx, settle); err != nil {
		return err
	}
	for _, c := range crews {
		if err := b.readings(ctx, rt, c); err != nil {
			return err
		}
	}
	return nil
}

// readings of one kind. Nobody else works meanwhile.
func (b *bench) readings(ctx context.Context, rt Runtime, c *crew) error {
	if err := b.read(rt, c.col, atRest, c.stages); err != nil {
		return err
	}
	b.progress.doing("memory: " + c.col.name + ", after calls and execs")
	for _, st := range c.stages {
		for range stateCalls {
			if _, err := st.shim.State(ctx, &taskapi.StateRequest{ID: st.bundle.ID}); err != nil {
				return err
			}
		}
		if err := b.read(rt, c.col, afterState, []*stage{st}); err != nil {
			return err
		}
	}
	b.progress.step()
	return b.workReadings(ctx, rt, c)
}

// workReadings are those after execs. Where those are too slow to be done there are none:
// a reading after a few of them is not one after a thousand.
func (b *bench) workReadings(ctx context.Context, rt Runtime, c *crew) error {
	if b.tooSlow(slowKey{"exec", rt, c.col.name}, memoryFlight) {
		return nil
	}
	for _, st := range c.stages[:workers] {
		if all, err := st.execs(ctx, memoryExecs); err != nil || !all {
			return err
		}
		if err := b.read(rt, c.col, afterExecs, []*stage{st}); err != nil {
			return err
		}
		b.progress.step()
	}
	first := c.stages[0]
	if all, err := first.execs(ctx, b.scaled(moreExecs, 0)); err != nil || !all {
		return err
	}
	b.progress.step()
	return b.read(rt, c.col, afterMore, []*stage{first})
}

// execs does n execs, or says that it could not do all, and lets the last exits settle.
func (st *stage) execs(ctx context.Context, n int) (all bool, err error) {
	process, err := st.process("true")
	if err != nil {
		return false, err
	}
	op := func(ctx context.Context, _ int) error { return st.exec(ctx, process) }
	for left := n; left > 0; left -= memoryExecs { // each within the time of one batch
		out, err := runBatch(ctx, min(left, memoryExecs), memoryFlight, op)
		if err != nil || out.Slow {
			return false, err
		}
	}
	return true, rest(ctx, settle/4)
}

// read notes what each of the shims occupies.
func (b *bench) read(rt Runtime, col column, when string, stages []*stage) error {
	for _, st := range stages {
		f, err := footprintOf(st.shim.Pid)
		if err != nil {
			return err
		}
		b.addFootprint(Key{Measure: "memory", Runtime: rt.Name}, col, when, f)
	}
	return nil
}

func (b *bench) addFootprint(k Key, col column, when string, f footprint) {
	const mb = 1e6
	title := map[string]string{atRest: "at rest", afterState: "after 100 State calls", afterExecs: "after 1,000 execs", afterMore: "after 10,000 more"}[when]
	add := func(metric, name, u string, value float64) {
		b.result.add(k.of(when+"."+metric), col, unit{name + ", " + title, u, Lower}, value)
	}
	add("resident", "resident memory", "MB", f.Resident/mb)
	add("proportional", "proportional memory", "MB", f.Proportional/mb)
	add("private", "private memory", "MB", f.Private/mb)
	add("anonymous", "anonymous memory", "MB", f.Anonymous/mb)
	add("threads", "threads", "", f.Threads)
	add("descriptors", "file descriptors", "", f.Descriptors)
}

// rest waits, unless ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
