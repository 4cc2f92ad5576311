package bench

// Execs and containers through a containerd, where one is given: what users see.

import (
	"context"
	"errors"
)

func daemonUnit(metric string) unit {
	return map[string]unit{
		"exec": {"wall time per exec through containerd", "ms", Lower},
		"task": {"a container's task through containerd, from create to delete", "ms", Lower},
	}[metric]
}

// withDaemon: only where a containerd is given.
func withDaemon(b *bench, _ Runtime) bool { return b.cfg.Containerd != "" }

func daemonSteps(b *bench) int { return b.rounds(0) * b.columnCount(false) * 2 }

func runDaemon(ctx context.Context, b *bench, rt Runtime) error {
	return b.alternate(ctx, rt, b.rounds(0), false, "through containerd", func(col column) (err error) {
		d, err := b.newDaemon(*col.shim, rt)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.conn.Close()) }()
		if err := b.daemonExecs(ctx, d, col); err != nil {
			return err
		}
		b.progress.step()
		if err := b.daemonTasks(ctx, d, col); err != nil {
			return err
		}
		b.progress.step()
		return nil
	})
}

// daemonExecs measures execs in one container, at each number in flight.
func (b *bench) daemonExecs(ctx context.Context, d *daemon, col column) (err error) {
	id := d.next()
	if err := d.define(ctx, id, "sleep", "2147483647"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.forget(ctx, id)) }()
	if err := d.up(ctx, id); err != nil {
		return err
	}
	process, err := d.process("true")
	if err != nil {
		return err
	}
	op := func(ctx context.Context, _ int) error { return d.exec(ctx, id, process) }
	if _, err := runBatch(ctx, warmExecs, warmExecs, op); err != nil {
		return err
	}
	for _, flight := range inFlight() {
		if b.tooSlow(slowKey{"daemon", d.rt, col.name}, flight) {
			return nil
		}
		n := max(b.scaled(execsPerRound, 0), flight)
		out, err := runBatch(ctx, n, flight, op)
		if err != nil {
			return err
		}
		b.result.add(Key{Measure: "daemon", Metric: "exec", Runtime: d.rt.Name, Param: flight}, col, daemonUnit("exec"), milliseconds(out.per()))
		if out.hopeless(n) {
			b.slow[slowKey{"daemon", d.rt, col.name}] = flight
		}
	}
	return nil
}

// daemonTasks measures containers, each with a shim of its own.
func (b *bench) daemonTasks(ctx context.Context, d *daemon, col column) (err error) {
	n := b.scaled(tasksPerRound, atOnce)
	for _, level := range levels() {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = d.next()
			if err := d.define(ctx, ids[i], "true"); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, d.forget(ctx, ids[i])) }()
		}
		out, err := runBatch(ctx, n, level, func(ctx context.Context, i int) error { return d.task(ctx, ids[i]) })
		if err != nil {
			return err
		}
		b.result.add(Key{Measure: "daemon", Metric: "task", Runtime: d.rt.Name, Param: level}, col, daemonUnit("task"), milliseconds(out.per()))
	}
	return nil
}
