package bench

// A container with a shim of its own, from the `start` helper to the end of the `delete`
// helper: what a daemon does for a container that is no part of a pod.

import (
	"context"
	"errors"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"

	"github.com/larkshim/lark/internal/shimclient"
)

func wholeUnit() unit { return unit{"a container with its shim, from start to delete", "ms", Lower} }

func wholeSteps(b *bench) int { return b.rounds(0) * b.columnCount(true) * len(levels()) }

func runWhole(ctx context.Context, b *bench, rt Runtime) error {
	n := b.scaled(wholesPerRound, atOnce)
	return b.alternate(ctx, rt, b.rounds(0), true, "containers with a shim each", func(col column) error {
		if col.shim == nil {
			return b.bareTasks(ctx, rt, col, "whole", wholeUnit(), n)
		}
		for _, level := range levels() {
			out, err := b.wholes(ctx, *col.shim, rt, n, level)
			if err != nil {
				return err
			}
			b.result.add(Key{Measure: "whole", Metric: "wall", Runtime: rt.Name, Param: level}, col, wholeUnit(), milliseconds(out.per()))
			b.progress.step()
		}
		return nil
	})
}

// wholes makes the directories before the clock runs and clears up after it.
func (b *bench) wholes(ctx context.Context, s Shim, rt Runtime, n, level int) (out batch, err error) {
	stages := make([]*stage, n)
	defer func() {
		for _, st := range stages {
			if st == nil {
				continue
			}
			if st.shim != nil {
				err = errors.Join(err, st.shim.Stop(ctx))
			}
			err = errors.Join(err, st.abandon())
		}
	}()
	for i := range stages {
		if stages[i], err = b.emptyStage(rt); err != nil {
			return batch{}, err
		}
	}
	return runBatch(ctx, n, level, func(ctx context.Context, i int) error { return stages[i].whole(ctx, s) })
}

// emptyStage is a stage whose shim is not started.
func (b *bench) emptyStage(rt Runtime) (*stage, error) {
	st := &stage{b: b, rt: rt}
	var err error
	if st.home, err = newHome(); err != nil {
		return nil, err
	}
	if st.sink, err = shimclient.NewSink(st.home, b.cfg.Log, st.observe); err != nil {
		return nil, errors.Join(err, st.abandon())
	}
	if st.bundle, err = st.home.NewBundle(st.name("0"), st.spec("0", "true")); err != nil {
		return nil, errors.Join(err, st.abandon())
	}
	return st, nil
}

func (st *stage) whole(ctx context.Context, s Shim) error {
	cfg := shimclient.Config{Binary: s.Path, Runtime: st.rt.Path, Namespace: namespace, Home: st.home, Sink: st.sink, Era: s.era}
	shim, err := shimclient.Start(ctx, cfg, st.bundle)
	if err != nil {
		return err
	}
	st.shim = shim
	if err := st.up(ctx, st.bundle); err != nil {
		return err
	}
	if _, err := shim.Wait(ctx, &taskapi.WaitRequest{ID: st.bundle.ID}); err != nil {
		return err
	}
	if _, err := shim.Delete(ctx, &taskapi.DeleteRequest{ID: st.bundle.ID}); err != nil {
		return err
	}
	shim.Leave(ctx)
	_, err = shim.RunDelete(ctx, st.bundle)
	return err
}
