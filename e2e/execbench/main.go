// Command execbench holds lark's shim against containerd's own: how long do 100
// execs of `true`, all at once, take through a real containerd? It runs both
// shims in turn under the same daemon and prints the median of each and their
// ratio; under containerd 2.4, whose shim has the same order of cost, and under
// the system's, on Debian 12 a 1.6 whose shim holds its big lock over them.
//
//	execbench [-execs 100] [-rounds 5] [-slow-rounds 1] [-assert]
//
// The environment chooses daemons and shim, as for the storms.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/larkshim/lark/e2e/daemon"
)

const (
	// asGood is the most that lark may take of the time of containerd 2.4's shim.
	asGood = 1.05
	// aFifth is the most that it may take of the time of 1.6's, which is slow.
	aFifth = 0.2
	// bound is for one round; 1.6's own shim takes two minutes.
	bound = 10 * time.Minute
)

type options struct {
	execs, rounds, slowRounds int
	assert                    bool
}

func main() {
	var o options
	flag.IntVar(&o.execs, "execs", 100, "how many execs at once")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each shim")
	flag.IntVar(&o.slowRounds, "slow-rounds", 1, "rounds of each shim under containerd 1.6, whose own takes two minutes")
	flag.BoolVar(&o.assert, "assert", false, "fail where lark takes more than it may")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "execbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	daemons := daemon.Containerds()
	slices.Reverse(daemons) // the quick one first
	var missed []string
	for _, containerd := range daemons {
		r, err := compare(ctx, containerd, o)
		if err != nil {
			return fmt.Errorf("%s: %w", containerd, err)
		}
		fmt.Println(r)
		if r.ratio() > r.most {
			missed = append(missed, r.version)
		}
	}
	if o.assert && len(missed) > 0 {
		return fmt.Errorf("more than it may take under %q", missed)
	}
	return nil
}

// result are the rounds of both shims under one daemon.
type result struct {
	version   string
	execs     int
	lark, own []time.Duration
	most      float64
}

func (r *result) ratio() float64 {
	return median(r.lark).Seconds() / median(r.own).Seconds()
}

// String is one line, and the single rounds.
func (r *result) String() string {
	verdict := "met"
	if r.ratio() > r.most {
		verdict = "MISSED"
	}
	return fmt.Sprintf("containerd %s, %d execs of true at once, median of %d: lark %.3f s, containerd-shim-runc-v2 %.3f s, ratio %.3f (at most %.2f: %s)\n  rounds: lark %s; own %s",
		r.version, r.execs, len(r.lark), median(r.lark).Seconds(), median(r.own).Seconds(), r.ratio(), r.most, verdict, seconds(r.lark), seconds(r.own))
}

func seconds(ds []time.Duration) string {
	var s []string
	for _, d := range ds {
		s = append(s, fmt.Sprintf("%.3f", d.Seconds()))
	}
	return strings.Join(s, " ")
}

// median is the middle one, of an even number the mean of the two.
func median(ds []time.Duration) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	ds = slices.Sorted(slices.Values(ds))
	return (ds[(len(ds)-1)/2] + ds[len(ds)/2]) / 2
}

// compare runs the shims in turn under one daemon.
func compare(ctx context.Context, containerd string, o options) (r *result, err error) {
	shim := daemon.ShimFor(containerd)
	name, err := daemon.RuntimeName(shim)
	if err != nil {
		return nil, err
	}
	d, err := daemon.Start(ctx, daemon.Config{Binary: containerd, ShimDir: filepath.Dir(shim)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Stop(context.WithoutCancel(ctx))) }()
	r = &result{version: d.Version(), execs: o.execs, most: asGood}
	rounds := o.rounds
	if strings.HasPrefix(d.Version(), "1.6.") {
		r.most, rounds = aFifth, o.slowRounds
	}
	for i := range rounds {
		for _, side := range []struct {
			runtime string
			times   *[]time.Duration
		}{{name, &r.lark}, {"io.containerd.runc.v2", &r.own}} {
			took, err := round(ctx, d, side.runtime, fmt.Sprintf("b%d-%d", i, len(r.lark)), o.execs)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", side.runtime, err)
			}
			*side.times = append(*side.times, took)
		}
	}
	return r, nil
}

// round starts a container, runs the execs at once, and ends it. The time is
// from the first Exec call to the last answer to Wait.
func round(ctx context.Context, d *daemon.Daemon, runtime, id string, execs int) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	c, err := d.Client(ctx, "bench")
	if err != nil {
		return 0, err
	}
	rootfs, err := d.Rootfs()
	if err != nil {
		return 0, err
	}
	if err := c.CreateContainer(ctx, id, d.Runc(runtime, ""), d.Spec(id, daemon.SpecOpts{Args: []string{"sleep", "100000"}})); err != nil {
		return 0, err
	}
	if _, err := c.CreateTask(ctx, id, daemon.BindRootfs(rootfs), daemon.Stdio{}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, remove(ctx, c, id)) }()
	if _, err := c.Start(ctx, id, ""); err != nil {
		return 0, err
	}
	if err := one(ctx, c, id, "warm"); err != nil {
		return 0, err
	}
	return crowd(ctx, c, id, execs)
}

// crowd runs all execs at once.
func crowd(ctx context.Context, c *daemon.Client, id string, execs int) (time.Duration, error) {
	errs := make([]error, execs)
	var all sync.WaitGroup
	began := time.Now()
	for i := range execs {
		all.Go(func() { errs[i] = one(ctx, c, id, fmt.Sprintf("e%d", i)) })
	}
	all.Wait()
	return time.Since(began), errors.Join(errs...)
}

// one is one exec of true, which must end well.
func one(ctx context.Context, c *daemon.Client, id, exec string) error {
	if err := c.Exec(ctx, id, exec, daemon.Process("true"), daemon.Stdio{}); err != nil {
		return fmt.Errorf("exec %s: %w", exec, err)
	}
	if _, err := c.Start(ctx, id, exec); err != nil {
		return fmt.Errorf("start of %s: %w", exec, err)
	}
	e, err := c.Wait(ctx, id, exec)
	if err == nil && e.Status != 0 {
		err = fmt.Errorf("status %d", e.Status)
	}
	if err != nil {
		return fmt.Errorf("wait for %s: %w", exec, err)
	}
	return nil
}

// remove ends the container.
func remove(ctx context.Context, c *daemon.Client, id string) error {
	if err := c.Kill(ctx, id, "", 9, false); err != nil {
		return err
	}
	if _, err := c.Wait(ctx, id, ""); err != nil {
		return err
	}
	if _, err := c.Delete(ctx, id, ""); err != nil {
		return err
	}
	return c.DeleteContainer(ctx, id)
}
