// Package bench is `lark bench`: runtime shims side by side, in one run, on the same work.
//
// A run has columns (the shims, and the bare OCI runtime under a subreaper, which is the
// limit), runtimes (an OCI runtime, or the stub, so small that a shim's own cost shows)
// and measures. Each measure lives in a file of its own and repeats its work for several
// rounds; within a round every column does the same work in turn, and the order of the
// columns moves on by one from round to round, so that a machine that grows slower hits
// them all. Every sample is kept; what is shown are medians, half the distance between
// the quartiles, and the ratio to the first shim.
//
// The shims are driven through package shimclient, that is, through their own protocol
// and without a containerd in the way; a measure that makes sense there can also go
// through a containerd.
package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/larkshim/lark/internal/shimclient"
	"github.com/larkshim/lark/internal/spec"
)

// Shim is a shim to be measured.
type Shim struct {
	Name string
	Path string // absolute

	era shimclient.Era // learnt once: trying costs a helper
}

// Runtime is an OCI runtime to measure with.
type Runtime struct {
	Name string
	Path string // absolute
	Stub bool
}

// Config says what is measured.
type Config struct {
	Shims      []Shim
	Runtimes   []Runtime
	Only       []string // measures; empty: all
	Rounds     int
	Quick      bool     // a fifth of the work
	Containerd string   // address of a containerd to go through as well, or empty
	BareHelper []string // command line of the process that drives the bare runtime
	Progress   *os.File // where progress is shown; nil: nowhere
	Log        *slog.Logger
}

// Bare is the name of the bare runtime's column.
const Bare = "bare runtime"

// bench is a run in progress.
type bench struct {
	cfg      Config
	base     *shimclient.Home // shared by all: the root filesystem
	rootfs   string
	result   *Result
	progress *progress
	// slow remembers the level at which a column's execs were too slow: it and those
	// above it are not done again.
	slow map[slowKey]int
	// daemons counts, so that the IDs of one connection are not those of another.
	daemons atomic.Int64
}

type slowKey struct {
	measure string
	runtime Runtime
	column  string
}

// tooSlow is true for a level at which, or below which, the column was too slow.
func (b *bench) tooSlow(k slowKey, flight int) bool {
	limit, slow := b.slow[k]
	return slow && flight >= limit
}

// measure is one kind of figure. steps is how often it calls bench.step, for the bar.
type measure struct {
	name  string
	about string
	run   func(ctx context.Context, b *bench, rt Runtime) error
	// with says whether it is run with this runtime.
	with func(b *bench, rt Runtime) bool
	// steps is how many steps a run with one runtime has.
	steps func(b *bench) int
}

// measures lists them in the order in which they are run and shown.
func measures() []measure {
	every := func(*bench, Runtime) bool { return true }
	return []measure{
		{"exec", "latency, throughput, shim CPU and threads of execs, 1 to 128 in flight", runExecs, every, execSteps},
		{"burst", "latency and throughput of 100 execs at once (*)", runBurst, firstTwo, burstSteps},
		{"task", "one container from Create to Delete in a running shim, one by one and four at once (*)", runTasks, firstTwo, taskSteps},
		{"whole", "one container from the shim's start to its end, one by one and four at once (*)", runWhole, firstTwo, wholeSteps},
		{"start", "the start helper, its CPU, and the time to the first answer", runStarts, firstOnly, startSteps},
		{"memory", "memory, threads and descriptors of ten shims of each kind, at rest and after work", runMemory, firstOnly, memorySteps},
		{"added", "memory of each further container in one shim", runAdded, firstOnly, addedSteps},
		{"exit", "CPU of one exit beside 1 to 4,096 running processes", runExits, stubOnly, exitSteps},
		{"daemon", "execs and containers through a containerd (with --containerd)", runDaemon, withDaemon, daemonSteps},
		{measureHeld, "how much longer kills, exits and states take while an execve is held (as root, when named)", runHeld, withHeld, heldSteps},
		{"stdout", "standard output, MB/s and shim CPU per MB (*)", runStdout, firstTwo, stdoutSteps},
	}
}

// firstOnly: what the runtime has no part in is measured once.
func firstOnly(b *bench, rt Runtime) bool { return rt == b.cfg.Runtimes[0] }

// firstTwo: a third runtime says no more about the shims here, and takes minutes.
func firstTwo(b *bench, rt Runtime) bool {
	return slices.Contains(b.cfg.Runtimes[:min(2, len(b.cfg.Runtimes))], rt)
}

// stubOnly: thousands of processes are too many for anything else.
func stubOnly(_ *bench, rt Runtime) bool { return rt.Stub }

// Measures lists the names of all measures, and what each is about, for a help text.
func Measures() [][2]string {
	var all [][2]string
	for _, m := range measures() {
		all = append(all, [2]string{m.name, m.about})
	}
	return all
}

// Run measures. It returns what it has when ctx ends early, together with the error.
func Run(ctx context.Context, cfg Config) (_ *Result, err error) {
	chosen, err := choose(cfg.Only)
	if err != nil {
		return nil, err
	}
	base, err := newHome()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, base.Close()) }()
	b := &bench{cfg: cfg, base: base, rootfs: filepath.Join(base.Dir, "rootfs"), result: newResult(cfg), slow: map[slowKey]int{}}
	if err := spec.Busybox(ctx, b.rootfs); err != nil {
		return nil, err
	}
	b.progress = newProgress(cfg.Progress, b.total(chosen))
	defer b.progress.end()
	for i := range b.cfg.Shims {
		if err := b.learn(ctx, &b.cfg.Shims[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", b.cfg.Shims[i].Name, err)
		}
	}
	begin := time.Now()
	for _, m := range chosen {
		for _, rt := range b.cfg.Runtimes {
			if !m.with(b, rt) {
				continue
			}
			start := time.Now()
			err := m.run(ctx, b, rt)
			b.result.Took = append(b.result.Took, Took{m.name, rt.Name, time.Since(start).Round(100 * time.Millisecond).Seconds()})
			if err != nil {
				return b.result.finish(time.Since(begin)), fmt.Errorf("%s with %s: %w", m.name, rt.Name, err)
			}
		}
	}
	return b.result.finish(time.Since(begin)), nil
}

func choose(only []string) ([]measure, error) {
	all := measures()
	if len(only) == 0 {
		return all, nil
	}
	var chosen []measure
	for _, m := range all {
		if slices.Contains(only, m.name) {
			chosen = append(chosen, m)
		}
	}
	for _, name := range only {
		if !slices.ContainsFunc(all, func(m measure) bool { return m.name == name }) {
			return nil, fmt.Errorf("no measure is called %q", name)
		}
	}
	return chosen, nil
}

func (b *bench) total(chosen []measure) int {
	n := 0
	for _, m := range chosen {
		for _, rt := range b.cfg.Runtimes {
			if m.with(b, rt) {
				n += m.steps(b)
			}
		}
	}
	return n
}

// learn starts the shim once, to know in which era it can be started.
func (b *bench) learn(ctx context.Context, s *Shim) error {
	st, err := b.newStage(ctx, *s, b.cfg.Runtimes[0])
	if err != nil {
		return err
	}
	s.era = st.shim.Era
	b.result.describe(s.Name, fmt.Sprintf("%s, answers as %s, task API v%d", filepath.Base(s.Path), st.shim.Answer.Form, st.shim.Answer.Version))
	return st.close(ctx)
}

// rounds is how often a measure repeats its work, at most limit.
func (b *bench) rounds(limit int) int {
	if limit > 0 && b.cfg.Rounds > limit {
		return limit
	}
	return b.cfg.Rounds
}

// scaled is a number of operations, fewer when the run is to be quick.
func (b *bench) scaled(n, least int) int {
	if b.cfg.Quick {
		n /= quickDivisor
	}
	return max(n, least)
}

// alternate calls fn for every column in every round. The bare runtime is the first
// column where bare is true.
func (b *bench) alternate(ctx context.Context, rt Runtime, rounds int, bare bool, what string, fn func(col column) error) error {
	cols := b.columns(bare)
	for round := range rounds {
		for i := range cols {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			col := cols[(i+round)%len(cols)]
			b.progress.doing(fmt.Sprintf("%s, %s, %s, round %d of %d", what, rt.Name, col.name, round+1, rounds))
			if err := fn(col); err != nil {
				return fmt.Errorf("%s: %w", col.name, err)
			}
		}
	}
	return nil
}

// column is what is measured: a shim, or the bare runtime where shim is nil.
type column struct {
	name string
	shim *Shim
}

func (b *bench) columns(bare bool) []column {
	var cols []column
	if bare {
		cols = append(cols, column{name: Bare})
	}
	for i := range b.cfg.Shims {
		cols = append(cols, column{name: b.cfg.Shims[i].Name, shim: &b.cfg.Shims[i]})
	}
	return cols
}

// columnCount is how many steps one round of alternate takes.
func (b *bench) columnCount(bare bool) int { return len(b.columns(bare)) }

// ParseShim reads NAME=PATH or PATH.
func ParseShim(text string) (Shim, error) {
	name, path, named := strings.Cut(text, "=")
	if !named {
		path = text
		name = strings.TrimPrefix(filepath.Base(path), "containerd-shim-")
	}
	abs, err := lookPath(path)
	return Shim{Name: name, Path: abs}, err
}

// ParseRuntime reads NAME=PATH, PATH or a name in PATH. A program called
// lark-stub-runtime is the stub.
func ParseRuntime(text string) (Runtime, error) {
	name, path, named := strings.Cut(text, "=")
	if !named {
		path = text
		name = filepath.Base(path)
	}
	abs, err := lookPath(path)
	stub := strings.HasPrefix(filepath.Base(path), StubName)
	if stub && !named {
		name = "stub"
	}
	return Runtime{Name: name, Path: abs, Stub: stub}, err
}

// StubName is the file name of the stub runtime.
const StubName = "lark-stub-runtime"
