package bench

// The `start` helper: how long a daemon waits for it, its CPU, and how long it takes until
// the shim that it began answers its first call.

import (
	"context"
)

func startSteps(b *bench) int { return b.rounds(0) * b.columnCount(false) }

func runStarts(ctx context.Context, b *bench, rt Runtime) error {
	n := b.scaled(startsPerRound, 2)
	return b.alternate(ctx, rt, b.rounds(0), false, "starts of a shim", func(col column) error {
		for range n {
			st, err := b.newStage(ctx, *col.shim, rt)
			if err != nil {
				return err
			}
			took := st.shim.Took
			if err := st.close(ctx); err != nil {
				return err
			}
			k := Key{Measure: "start", Runtime: rt.Name}
			b.result.add(k.of("helper"), col, unit{"start helper, wall time", "ms", Lower}, milliseconds(took.Helper))
			b.result.add(k.of("cpu"), col, unit{"start helper, CPU", "ms", Lower}, milliseconds(took.HelperCPU))
			b.result.add(k.of("ready"), col, unit{"from the start helper to the first answer", "ms", Lower}, milliseconds(took.Ready))
		}
		b.progress.step()
		return nil
	})
}
