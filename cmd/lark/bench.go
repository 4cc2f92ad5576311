package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/larkshim/lark/internal/bench"
	"github.com/larkshim/lark/internal/run"
)

const benchLong = `Measure runtime shims side by side, in one run, on the same work.

Each column is a shim, driven directly through its own protocol, and the first column
is the bare OCI runtime under a subreaper, which is the limit. The columns take turns in
every round. What is shown are medians, half the distance between the quartiles, and the
ratio to the first shim that is named.

The runtime called lark-stub-runtime does next to nothing, so that the shims' own costs
show. It is found beside this program.

crun refuses a machine with cgroup v1 controllers and a cgroup2 mount beside them. With a
runtime whose file is called crun, all of the run is done in a private mount namespace
without the cgroup2 mount there. A containerd given with --containerd stays where it is.

Measures; those with (*) are made with the first two runtimes only:
%s
A shim that cannot do half of the execs of a level in 15 s, or that takes far longer for
those begun, is not asked for more of them at once, nor is its memory after a thousand read.`

const benchExample = `  lark bench --shim upstream=/usr/bin/containerd-shim-runc-v2 --shim lark=bin/containerd-shim-lark-v2
  lark bench --quick --only exec,memory --json result.json --html result.html
  lark bench --runtime runc --runtime crun --rounds 7 --targets
  lark bench --from result.json --targets --markdown result.md --plot exec.wall.runc=wall.svg`

// benchOptions are the flags.
type benchOptions struct {
	shims, runtimes, only        []string
	rounds                       int
	quick, targets               bool
	json, html, from, containerd string
	lark, against                string
	markdown                     string
	plots                        []string
}

func benchCommand() *cobra.Command {
	var o benchOptions
	var list strings.Builder
	for _, m := range bench.Measures() {
		fmt.Fprintf(&list, "  %-11s %s\n", m[0], m[1])
	}
	cmd := &cobra.Command{
		Use:     "bench [flags]",
		Short:   "Measure shims side by side",
		Long:    fmt.Sprintf(benchLong, list.String()),
		Example: benchExample,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runBench(cmd, o) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.shims, "shim", nil, "a shim, as `NAME=PATH` or PATH; may be repeated (default: containerd's from PATH, and lark's)")
	f.StringArrayVar(&o.runtimes, "runtime", nil, "an OCI runtime, as `NAME=PATH`, PATH or a name in PATH; may be repeated (default: the stub, and runc)")
	f.StringSliceVar(&o.only, "only", nil, "`measures`, with commas between (default: all)")
	f.IntVar(&o.rounds, "rounds", defaultRounds, "how often each measure is repeated")
	f.BoolVar(&o.quick, "quick", false, "a fifth of the work in each round")
	f.StringVar(&o.json, "json", "", "write every sample to this `file`; - is standard output, instead of the table")
	f.StringVar(&o.html, "html", "", "write a page with plots to this `file`")
	f.StringVar(&o.markdown, "markdown", "", "write the tables as Markdown to this `file`")
	f.StringArrayVar(&o.plots, "plot", nil, "write one plot as SVG, given as `MEASURE.METRIC.RUNTIME=FILE`; may be repeated")
	f.StringVar(&o.from, "from", "", "measure nothing, show a `file` that --json wrote")
	f.StringVar(&o.containerd, "containerd", "", "`address` of a containerd to go through as well")
	f.BoolVar(&o.targets, "targets", false, "check the targets; exit status 1 when one is missed")
	f.StringVar(&o.lark, "lark", "lark-v2", "the shim's `name` that the targets are for")
	f.StringVar(&o.against, "against", "", "the shim's `name` that it is held against (default: the first other)")
	return cmd
}

// defaultRounds is the least that the targets ask for.
const defaultRounds = 5

func runBench(cmd *cobra.Command, o benchOptions) error {
	if err := checkPlots(o.plots); err != nil {
		return err
	}
	var r *bench.Result
	var err error
	if o.from != "" {
		r, err = readResult(o.from)
	} else {
		r, err = measureShims(cmd.Context(), o)
	}
	if r == nil {
		return err
	}
	if o.targets {
		err = errors.Join(err, r.CheckTargets(o.lark, o.against))
	}
	// What was measured before an error is shown all the same.
	if err := errors.Join(err, showResult(cmd.OutOrStdout(), r, o)); err != nil {
		return err
	}
	if o.targets && r.Missed() {
		return exitCode(exitBroken)
	}
	return nil
}

func readResult(path string) (*bench.Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r bench.Result
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &r, nil
}

func showResult(w io.Writer, r *bench.Result, o benchOptions) error {
	if o.json != "-" {
		if err := r.Table(w); err != nil {
			return err
		}
	}
	if o.json != "" {
		if err := writeTo(w, o.json, func(w io.Writer) error {
			e := json.NewEncoder(w)
			e.SetIndent("", " ")
			return e.Encode(r)
		}); err != nil {
			return err
		}
	}
	for path, fn := range map[string]func(io.Writer) error{o.html: r.HTML, o.markdown: r.Markdown} {
		if path == "" {
			continue
		}
		if err := writeTo(w, path, fn); err != nil {
			return err
		}
	}
	return writePlots(w, r, o.plots)
}

// checkPlots finds a misspelt one before half an hour is spent on measuring.
func checkPlots(plots []string) error {
	for _, p := range plots {
		name, path, _ := strings.Cut(p, "=")
		if path == "" {
			return fmt.Errorf("--plot %s: give MEASURE.METRIC.RUNTIME=FILE", p)
		}
		if err := bench.CheckPlot(name); err != nil {
			return fmt.Errorf("--plot %s: %w", p, err)
		}
	}
	return nil
}

// writePlots passes over what --only has left out, with a word.
func writePlots(w io.Writer, r *bench.Result, plots []string) error {
	for _, p := range plots {
		name, path, _ := strings.Cut(p, "=")
		svg, err := r.Plot(name)
		if errors.Is(err, bench.ErrNotMeasured) {
			fmt.Fprintln(os.Stderr, "lark:", err)
			continue
		}
		if err != nil {
			return err
		}
		if err := writeTo(w, path, func(w io.Writer) error { _, err := io.WriteString(w, svg); return err }); err != nil {
			return err
		}
	}
	return nil
}

func writeTo(stdout io.Writer, path string, fn func(io.Writer) error) error {
	if path == "-" {
		return fn(stdout)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}

func measureShims(ctx context.Context, o benchOptions) (*bench.Result, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("lark bench needs to be root: shims and runtimes make namespaces, mounts and cgroups")
	}
	cfg, err := benchConfig(o)
	if err != nil {
		return nil, err
	}
	if err := bench.Suit(cfg); err != nil {
		return nil, err
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	signals := make(chan os.Signal, 1)
	notifyEnding(signals)
	defer signal.Stop(signals)
	go func() {
		select {
		case <-signals:
			stop()
		case <-ctx.Done():
		}
	}()
	return bench.Run(ctx, cfg)
}

func benchConfig(o benchOptions) (bench.Config, error) {
	self, err := os.Executable()
	if err != nil {
		return bench.Config{}, err
	}
	cfg := bench.Config{
		Only: o.only, Rounds: max(1, o.rounds), Quick: o.quick, Containerd: o.containerd,
		BareHelper: []string{self, bareHelperName}, Progress: os.Stderr,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	if len(o.shims) == 0 {
		o.shims = defaultShims()
	}
	if len(o.runtimes) == 0 {
		o.runtimes = []string{filepath.Join(filepath.Dir(self), bench.StubName), "runc"}
	}
	for _, text := range o.shims {
		s, err := bench.ParseShim(text)
		if err != nil {
			return cfg, err
		}
		cfg.Shims = append(cfg.Shims, s)
	}
	for _, text := range o.runtimes {
		rt, err := bench.ParseRuntime(text)
		if err != nil {
			return cfg, err
		}
		cfg.Runtimes = append(cfg.Runtimes, rt)
	}
	if len(cfg.Shims) == 0 {
		return cfg, errors.New("no shim: name one with --shim")
	}
	return cfg, nil
}

// defaultShims are containerd's own, where there is one, and lark's.
func defaultShims() []string {
	var shims []string
	if s, err := bench.ParseShim("containerd-shim-runc-v2"); err == nil {
		shims = append(shims, s.Path)
	}
	if path, err := run.OwnShim(); err == nil {
		shims = append(shims, path)
	}
	return shims
}

const bareHelperName = "bench-bare"

// bareHelperCommand is the process that drives the bare runtime; nobody types it.
func bareHelperCommand() *cobra.Command {
	return &cobra.Command{
		Use:    bareHelperName,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return bench.ServeBare(context.Background(), os.Stdin, os.Stdout)
		},
	}
}
