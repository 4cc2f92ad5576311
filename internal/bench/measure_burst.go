package bench

// A hundred execs of `true` at once in one container: how long each takes, and all
// of them. What a client of a burst feels is the median; a shim that has all of
// them in flight at once makes every one wait for the end.

import (
	"context"
	"errors"
	"slices"
	"time"
)

func burstUnit(metric string) unit {
	return map[string]unit{
		"median": {"latency of an exec of a burst of 100, median", "ms", Lower},
		"p90":    {"the same, 90th of a hundred", "ms", Lower},
		"last":   {"the same, the last", "ms", Lower},
		"rate":   {"execs per second of a burst of 100", "1/s", Higher},
	}[metric]
}

func burstSteps(b *bench) int { return b.rounds(0) * b.columnCount(false) }

func runBurst(ctx context.Context, b *bench, rt Runtime) error {
	return b.alternate(ctx, rt, b.rounds(0), false, "bursts", func(col column) (err error) {
		st, err := b.newRunningStage(ctx, *col.shim, rt)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.close(ctx)) }()
		process, err := st.process("true")
		if err != nil {
			return err
		}
		op := func(ctx context.Context, _ int) error { return st.exec(ctx, process) }
		if _, err := runBatch(ctx, warmExecs, warmExecs, op); err != nil {
			return err
		}
		for range burstsPerRound {
			out, err := runBatch(ctx, burst, burst, op)
			if err != nil {
				return err
			}
			b.addBurst(rt, col, out)
		}
		b.progress.step()
		return nil
	})
}

func (b *bench) addBurst(rt Runtime, col column, out batch) {
	const p90 = 0.9
	k := Key{Measure: "burst", Runtime: rt.Name, Param: burst}
	each := durations(out.Each)
	b.result.add(k.of("median"), col, burstUnit("median"), quantile(each, 0.5))
	b.result.add(k.of("p90"), col, burstUnit("p90"), quantile(each, p90))
	b.result.add(k.of("last"), col, burstUnit("last"), slices.Max(each))
	b.result.add(k.of("rate"), col, burstUnit("rate"), float64(time.Second)/float64(out.per()))
}
