package bench

// One container from Create to Delete in a shim that is up: Create, Start, Wait, Delete
// of a container that runs `true`.

import (
	"context"
	"errors"
	"fmt"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"

	"github.com/larkshim/lark/internal/shimclient"
)

func taskUnit() unit { return unit{"create, start, wait, delete, per container", "ms", Lower} }

// levels are one by one, and several at once.
func levels() []int { return []int{1, atOnce} }

func taskSteps(b *bench) int { return b.rounds(0) * b.columnCount(true) * len(levels()) }

func runTasks(ctx context.Context, b *bench, rt Runtime) error {
	n := b.scaled(tasksPerRound, atOnce)
	return b.alternate(ctx, rt, b.rounds(0), true, "containers in a running shim", func(col column) (err error) {
		if col.shim == nil {
			return b.bareTasks(ctx, rt, col, "task", taskUnit(), n)
		}
		st, err := b.newRunningStage(ctx, *col.shim, rt)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.close(ctx)) }()
		for _, level := range levels() {
			bundles, err := st.bundles(fmt.Sprintf("l%d", level), n)
			if err != nil {
				return err
			}
			out, err := runBatch(ctx, n, level, func(ctx context.Context, i int) error { return st.task(ctx, bundles[i]) })
			if err != nil {
				return err
			}
			b.result.add(Key{Measure: "task", Metric: "wall", Runtime: rt.Name, Param: level}, col, taskUnit(), milliseconds(out.per()))
			b.progress.step()
			for _, x := range bundles {
				if err := x.Remove(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// bundles makes n bundles of containers that run `true`, before the clock runs.
func (st *stage) bundles(prefix string, n int) ([]*shimclient.Bundle, error) {
	all := make([]*shimclient.Bundle, n)
	for i := range all {
		suffix := fmt.Sprintf("%s-%d", prefix, i)
		b, err := st.home.NewBundle(st.name(suffix), st.spec(suffix, "true"))
		if err != nil {
			return nil, err
		}
		all[i] = b
	}
	return all, nil
}

// task takes one container from Create to Delete. One that fails is left to Stop.
func (st *stage) task(ctx context.Context, bundle *shimclient.Bundle) error {
	err := st.up(ctx, bundle)
	if err == nil {
		_, err = st.shim.Wait(ctx, &taskapi.WaitRequest{ID: bundle.ID})
	}
	if err == nil {
		_, err = st.shim.Delete(ctx, &taskapi.DeleteRequest{ID: bundle.ID})
	}
	if err != nil {
		st.shim.Adopt(bundle)
	}
	return err
}

// bareTasks is the same without a shim, for this measure and for `whole`.
func (b *bench) bareTasks(ctx context.Context, rt Runtime, col column, name string, u unit, n int) (err error) {
	x, err := b.newBare(ctx, rt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close(ctx)) }()
	for _, level := range levels() {
		out, err := x.do(bareTasks, n, level)
		if err != nil {
			return err
		}
		b.result.add(Key{Measure: name, Metric: "wall", Runtime: rt.Name, Param: level}, col, u, milliseconds(out.per()))
		b.progress.step()
	}
	return nil
}
