// Package storm runs many short containers at once through a real containerd
// and a real OCI runtime, in the ways that have made shims lose, double or
// disorder events, and holds containerd's event stream, the answers of the
// calls, and what is left on the machine against what was promised.
//
// It is parametrised by the containerd and by the shim, so that a shim with
// known faults can be seen to fail it.
package storm

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/internal/order"
)

const (
	// defaultBound is how long any one call may take on a loaded two-core
	// machine; what takes longer is reported as hung.
	defaultBound = 60 * time.Second
	// settleBound is how long events and clean-up may lag behind the last answer.
	settleBound = time.Minute
	// defaultWorkers keeps two cores busy with runtime calls, and some waiting.
	defaultWorkers = 8
	// most is how many violations or problems are printed of one storm.
	most = 20
)

// Config says what to storm, with what, and for how long.
type Config struct {
	Daemon daemon.Config
	// Shim is the path of the shim's binary, containerd-shim-NAME-VERSION.
	Shim string
	// Runc is the OCI runtime; "" for the shim's default.
	Runc string
	// Containers is how many to run; or, when 0, as many as fit into Duration.
	Containers int
	Duration   time.Duration
	// Kinds selects scenarios by name; nil for all.
	Kinds   *regexp.Regexp
	Workers int           // defaultWorkers when 0
	Bound   time.Duration // defaultBound when 0
	Seed    uint64        // 0 for one by the clock
	Out     io.Writer     // told of every violation as it is found; nil for none
}

// Result is what a storm has shown.
type Result struct {
	Version string // the daemon's
	Shim    string // the shim's file name
	Seed    uint64
	Counts  order.Counts
	// Violations are of the order of events; Problems all else: calls that hung
	// or failed, wrong statuses, lost output, things left behind.
	Violations []order.Violation
	Problems   []string
	PerKind    map[string]int // containers run, by scenario
	Took       time.Duration
}

// String is the summary, one line.
func (r *Result) String() string {
	return fmt.Sprintf("storm: containerd %s, %s: %d containers, %d execs, %d events, %d violations, %d problems, %.1f s (seed %d)",
		r.Version, r.Shim, r.Counts.Containers, r.Counts.Execs, r.Counts.Events, len(r.Violations), len(r.Problems), r.Took.Seconds(), r.Seed)
}

// Details lists what was wrong, by rule, with examples.
func (r *Result) Details() string {
	var b strings.Builder
	rules := map[order.Rule]int{}
	for i, v := range r.Violations {
		rules[v.Rule]++
		if i < most {
			fmt.Fprintln(&b, "violation:", v)
		}
	}
	for i, p := range r.Problems {
		if i < most {
			fmt.Fprintln(&b, "problem:", p)
		}
	}
	fmt.Fprintf(&b, "violations by rule: %v; problems: %d; containers by scenario: %v\n", rules, len(r.Problems), r.PerKind)
	return b.String()
}

// Failed says whether anything was wrong.
func (r *Result) Failed() bool { return len(r.Violations)+len(r.Problems) > 0 }

// storm is one run.
type storm struct {
	cfg     Config
	d       *daemon.Daemon
	c       *daemon.Client
	runtime daemon.Runtime
	rootfs  string
	check   *order.Checker

	mu       sync.Mutex
	problems []string
	perKind  map[string]int
	next     int // the number of the next container
	rand     *rand.Rand
	deadline time.Time
}

// Run runs a storm. An error means that it could not be run; what it has shown
// is in the result.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if cfg.Workers == 0 {
		cfg.Workers = defaultWorkers
	}
	if cfg.Bound == 0 {
		cfg.Bound = defaultBound
	}
	if cfg.Seed == 0 {
		cfg.Seed = uint64(time.Now().UnixNano())
	}
	name, err := daemon.RuntimeName(cfg.Shim)
	if err != nil {
		return nil, err
	}
	cfg.Daemon.ShimDir = filepath.Dir(cfg.Shim)
	d, err := daemon.Start(ctx, cfg.Daemon)
	if err != nil {
		return nil, err
	}
	s := &storm{
		cfg: cfg, d: d, runtime: d.Runc(name, cfg.Runc), check: order.New(),
		perKind: map[string]int{}, rand: rand.New(rand.NewPCG(cfg.Seed, 0)),
	}
	result, err := s.run(ctx)
	if stopErr := d.Stop(context.WithoutCancel(ctx)); err == nil && stopErr != nil {
		result.Problems = append(result.Problems, "stopping the daemon: "+stopErr.Error())
	}
	return result, err
}

func (s *storm) run(ctx context.Context) (*Result, error) {
	var err error
	if s.rootfs, err = s.d.Rootfs(); err != nil {
		return nil, err
	}
	if s.c, err = s.d.Client(ctx, "storm"); err != nil {
		return nil, err
	}
	sub, err := s.c.Subscribe(ctx, s.observe)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	s.deadline = began.Add(s.cfg.Duration)
	var workers sync.WaitGroup
	for range s.cfg.Workers {
		workers.Go(func() { s.work(ctx) })
	}
	workers.Wait()
	s.settle(ctx, sub)
	took := time.Since(began)
	sub.Close()
	return s.result(took), ctx.Err()
}

// observe hands one event to the checker.
func (s *storm) observe(e daemon.Envelope) {
	if !strings.HasPrefix(e.Topic, "/tasks/") {
		return // containerd's own, of records and snapshots
	}
	for _, v := range s.check.Observe(e.Event) {
		s.print("violation: " + v.String())
	}
}

func (s *storm) print(line string) {
	if s.cfg.Out != nil {
		fmt.Fprintln(s.cfg.Out, line)
	}
}

// problem notes what was wrong apart from the order of events.
func (s *storm) problem(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	s.print("problem: " + line)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, line)
}

// work runs scenarios until enough containers were run.
func (s *storm) work(ctx context.Context) {
	for ctx.Err() == nil {
		sc, n, seed, more := s.take()
		if !more {
			return
		}
		j := &job{s: s, id: fmt.Sprintf("%s-%d", sc.name, n), rand: rand.New(rand.NewPCG(seed, uint64(n)))}
		sc.run(ctx, j)
	}
}

// take hands out the next scenario, in turn; a scenario counts as many
// containers as it makes.
func (s *storm) take() (sc scenario, n int, seed uint64, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	chosen := s.chosen()
	if s.cfg.Containers > 0 {
		more = s.next < s.cfg.Containers
	} else {
		more = time.Now().Before(s.deadline)
	}
	if !more || len(chosen) == 0 {
		return scenario{}, 0, 0, false
	}
	turn := 0
	for _, k := range s.perKind {
		turn += k
	}
	sc = chosen[turn%len(chosen)]
	s.perKind[sc.name]++
	n = s.next
	s.next += sc.containers
	return sc, n, s.rand.Uint64(), true
}

func (s *storm) chosen() []scenario {
	if s.cfg.Kinds == nil {
		return scenarios
	}
	return slices.DeleteFunc(slices.Clone(scenarios), func(sc scenario) bool { return !s.cfg.Kinds.MatchString(sc.name) })
}

// settle waits until all that must come has come, and notes what is left.
func (s *storm) settle(ctx context.Context, sub *daemon.Subscription) {
	ctx, cancel := context.WithTimeout(ctx, settleBound)
	defer cancel()
	// What does not come is told by Finish.
	_ = sub.Until(ctx, func([]daemon.Envelope) bool { return len(s.check.Pending()) == 0 })
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), settleBound)
	defer cancel()
	for _, left := range s.d.NothingLeft(ctx) {
		s.problem("left over: %s", left)
	}
}

func (s *storm) result(took time.Duration) *Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &Result{
		Version: s.d.Version(), Shim: filepath.Base(s.cfg.Shim), Seed: s.cfg.Seed, Took: took,
		Violations: s.check.Finish(), Problems: s.problems, PerKind: s.perKind,
	}
	r.Counts = s.check.Counts()
	return r
}
