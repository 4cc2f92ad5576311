package bench

// Execs of `true` in one container: latency, throughput, the shim's CPU and its threads
// after them, at several numbers in flight. One exec is Exec, Start, Wait and Delete.

import (
	"context"
	"errors"
	"time"
)

func execUnit(metric string) unit {
	return map[string]unit{
		"wall":    {"wall time per exec", "ms", Lower},
		"median":  {"latency of an exec, median", "ms", Lower},
		"p99":     {"latency of an exec, 99th of a hundred", "ms", Lower},
		"rate":    {"execs per second", "1/s", Higher},
		"cpu":     {"shim CPU per exec", "ms", Lower},
		"threads": {"threads of the shim after execs", "", Lower},
	}[metric]
}

func execSteps(b *bench) int { return b.rounds(0) * b.columnCount(true) * len(inFlight()) }

func runExecs(ctx context.Context, b *bench, rt Runtime) error {
	n := b.scaled(execsPerRound, 0)
	return b.alternate(ctx, rt, b.rounds(0), true, "execs", func(col column) (err error) {
		if col.shim == nil {
			return b.bareExecs(ctx, rt, col, n)
		}
		st, err := b.newRunningStage(ctx, *col.shim, rt)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.close(ctx)) }()
		for _, flight := range inFlight() {
			if b.tooSlow(slowKey{"exec", rt, col.name}, flight) {
				b.progress.step()
				continue
			}
			if err := st.execLevel(ctx, col, n, flight); err != nil {
				return err
			}
		}
		return nil
	})
}

// bareExecs does the same without a shim.
func (b *bench) bareExecs(ctx context.Context, rt Runtime, col column, n int) (err error) {
	x, err := b.newBare(ctx, rt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close(ctx)) }()
	for _, flight := range inFlight() {
		if _, err := x.do(bareExecs, warmExecs, warmExecs); err != nil {
			return err
		}
		out, err := x.do(bareExecs, max(n, flight), flight)
		if err != nil {
			return err
		}
		b.addExecs(rt, col, flight, out)
		b.progress.step()
	}
	return nil
}

// execLevel measures one number in flight, and notes when that took too long.
func (st *stage) execLevel(ctx context.Context, col column, n, flight int) error {
	process, err := st.process("true")
	if err != nil {
		return err
	}
	op := func(ctx context.Context, _ int) error { return st.exec(ctx, process) }
	if _, err := runBatch(ctx, warmExecs, warmExecs, op); err != nil {
		return err
	}
	before, err := cpuOf(st.shim.Pid)
	if err != nil {
		return err
	}
	n = max(n, flight)
	out, err := runBatch(ctx, n, flight, op)
	if err != nil {
		return err
	}
	if out.hopeless(n) {
		st.b.slow[slowKey{"exec", st.rt, col.name}] = flight
	}
	after, err := cpuOf(st.shim.Pid)
	if err != nil {
		return err
	}
	fp, err := footprintOf(st.shim.Pid)
	if err != nil {
		return err
	}
	b, k := st.b, Key{Measure: "exec", Runtime: st.rt.Name, Param: flight}
	b.addExecs(st.rt, col, flight, out)
	b.result.add(k.of("cpu"), col, execUnit("cpu"), milliseconds(after-before)/float64(len(out.Each)))
	b.result.add(k.of("threads"), col, execUnit("threads"), fp.Threads)
	b.progress.step()
	return nil
}

// of is the key with another metric.
func (k Key) of(metric string) Key {
	k.Metric = metric
	return k
}

func (b *bench) addExecs(rt Runtime, col column, flight int, out batch) {
	const p99 = 0.99
	k := Key{Measure: "exec", Runtime: rt.Name, Param: flight}
	each := durations(out.Each)
	b.result.add(k.of("wall"), col, execUnit("wall"), milliseconds(out.per()))
	b.result.add(k.of("median"), col, execUnit("median"), quantile(each, 0.5))
	b.result.add(k.of("p99"), col, execUnit("p99"), quantile(each, p99))
	b.result.add(k.of("rate"), col, execUnit("rate"), float64(time.Second)/float64(out.per()))
}
