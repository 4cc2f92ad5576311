package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/e2e/registry"
	"github.com/larkshim/lark/e2e/suite"
	"github.com/larkshim/lark/e2e/suite/gotest"
	"github.com/larkshim/lark/e2e/suite/sandbox"
	"github.com/larkshim/lark/e2e/suite/upstream"
)

const (
	// clientStall: the longest test takes half a minute on two idle cores.
	clientStall = 3 * time.Minute
	// columnLimit ends a column whatever happens in it; a whole one takes a few minutes.
	columnLimit = 20 * time.Minute
)

// column is the suite with one shim under one name.
type column struct {
	Title   string
	Runtime string            // TEST_RUNTIME; empty: the tests' own default, io.containerd.runc.v2
	Shims   map[string]string // installed name -> file
	// results
	results map[string]gotest.Result
	elapsed time.Duration
}

// columns are containerd's own shim and the subject under both names. In the subject's columns it is installed under both:
// some tests name io.containerd.runc.v2 themselves, whatever TEST_RUNTIME says.
func columns(upstreamShim, subject string) []*column {
	both := map[string]string{"containerd-shim-runc-v2": subject, "containerd-shim-lark-v2": subject}
	return []*column{
		{Title: "upstream", Shims: map[string]string{"containerd-shim-runc-v2": upstreamShim}},
		{Title: "as lark.v2", Runtime: "io.containerd.lark.v2", Shims: both},
		{Title: "as runc.v2", Shims: map[string]string{"containerd-shim-runc-v2": subject}},
	}
}

func runClient(ctx context.Context, o options) error {
	if err := (suite.Needs{
		Programs: []string{"runc", "busybox", "lsof", "criu", "mkfs.xfs"},
		Peers:    []string{"containerd-" + daemon.Containerd24},
	}).Provide(); err != nil {
		return err
	}
	built, err := upstream.Get(ctx)
	if err != nil {
		return err
	}
	tests, err := clientTests(ctx, built, o.run)
	if err != nil {
		return err
	}
	all := columns(built.Shim, o.shim)
	for _, c := range all {
		if err := c.fill(ctx, o, built, tests); err != nil {
			return fmt.Errorf("column %q: %w", c.Title, err)
		}
	}
	return report(os.Stdout, o.logs, tests, all)
}

// clientTests lists the suite's tests.
func clientTests(ctx context.Context, built *upstream.Suite, pattern string) ([]string, error) {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	// -short keeps TestMain from starting a daemon.
	out, err := exec.CommandContext(ctx, built.Programs["client.test"], "-test.short", "-test.list", "^Test").Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests: %w", err)
	}
	var tests []string
	for _, name := range strings.Fields(string(out)) {
		if strings.HasPrefix(name, "Test") && match.MatchString(name) {
			tests = append(tests, name)
		}
	}
	if len(tests) == 0 {
		return nil, fmt.Errorf("no test matches %q", pattern)
	}
	return tests, nil
}

// fill runs the suite for one column.
func (c *column) fill(ctx context.Context, o options, built *upstream.Suite, tests []string) error {
	ctx, cancel := context.WithTimeout(ctx, columnLimit)
	defer cancel()
	stage, err := os.MkdirTemp("", "lark-stage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	if err := c.install(stage, built); err != nil {
		return err
	}
	name := strings.ReplaceAll(c.Title, " ", "-")
	log, err := os.Create(filepath.Join(o.logs, "client-"+name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(os.Stderr, "client: %s: %d tests, output in %s\n", c.Title, len(tests), log.Name())

	began := time.Now()
	c.results = map[string]gotest.Result{}
	for _, group := range groups(tests) {
		if err := c.runGroup(ctx, stage, built, group, log); err != nil {
			return err
		}
	}
	for range shimlessTries - 1 {
		if again := c.unlucky(); len(again) > 0 {
			fmt.Fprintf(os.Stderr, "client: %s: once more, as they concern no shim: %v\n", c.Title, again)
			if err := c.runGroup(ctx, stage, built, again, log); err != nil {
				return err
			}
		}
	}
	c.elapsed = time.Since(began)
	return c.checkShims(stage)
}

// runGroup runs tests in one daemon, unless they bring it down.
func (c *column) runGroup(ctx context.Context, stage string, built *upstream.Suite, tests []string, log io.Writer) error {
	group := &gotest.Suite{
		Tests: tests,
		Stall: clientStall,
		Start: func(ctx context.Context, skip []string, out io.Writer) error {
			return c.attempt(ctx, stage, built, tests, skip, io.MultiWriter(out, log), log)
		},
		Progress: func(test string, r gotest.Result) {
			if r.Outcome != gotest.Pass {
				fmt.Fprintf(os.Stderr, "client: %s: %-5s %s (%.1fs)\n", c.Title, r.Outcome, test, r.Elapsed.Seconds())
			}
		},
	}
	results, err := group.Run(ctx)
	maps.Copy(c.results, results)
	return err
}

// unlucky are the tests that failed but may be tried again, sorted.
func (c *column) unlucky() []string {
	var tests []string
	for test, r := range c.results {
		if r.Outcome == gotest.Fail && shimless.MatchString(test) && reasonFor(test, r) == "" {
			tests = append(tests, test)
		}
	}
	slices.Sort(tests)
	return tests
}

// groups splits the tests into those that may run in one daemon. Checkpoint tests leave their containers behind when CRIU
// fails, and TestContainerList wants none, so they have a daemon of their own.
func groups(tests []string) [][]string {
	var checkpoint, others []string
	for _, test := range tests {
		if strings.HasPrefix(test, "TestCheckpoint") {
			checkpoint = append(checkpoint, test)
		} else {
			others = append(others, test)
		}
	}
	return slices.DeleteFunc([][]string{others, checkpoint}, func(group []string) bool { return len(group) == 0 })
}

// install puts the programs of the column into the directory that will be first in PATH.
func (c *column) install(stage string, built *upstream.Suite) error {
	programs := maps.Clone(built.Programs)
	maps.Copy(programs, c.Shims)
	for name, file := range programs {
		if err := suite.CopyProgram(file, filepath.Join(stage, name)); err != nil {
			return err
		}
	}
	return nil
}

// attempt runs the suite without the tests in skip, in a sandbox of its own.
func (c *column) attempt(ctx context.Context, stage string, built *upstream.Suite, tests, skip []string, out, log io.Writer) error {
	order := insideOrder{
		Stage: stage,
		Args:  []string{"-test.v=test2json", "-test.root", "-test.run", exactly(tests)},
	}
	if len(skip) > 0 {
		order.Args = append(order.Args, "-test.skip", exactly(skip))
	}
	if c.Runtime != "" {
		order.Env = append(order.Env, "TEST_RUNTIME="+c.Runtime)
	}
	encoded, err := json.Marshal(order)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return sandbox.Run(ctx, sandbox.Config{
		Hosts:  registry.Hosts,
		Keep:   []string{stage},
		Path:   []string{stage},
		Dir:    built.Dir,
		Stdout: out,
		Stderr: log,
	}, self, string(encoded))
}

// checkShims fails when a shim was seen at work that was not installed for this column, or none was.
func (c *column) checkShims(stage string) error {
	seen, err := os.ReadFile(filepath.Join(stage, shimsSeenFile))
	if err != nil {
		return err
	}
	if len(seen) == 0 {
		return errors.New("no shim was seen at work")
	}
	installed := map[string]bool{}
	for _, file := range c.Shims {
		sum, err := suite.Digest(file)
		if err != nil {
			return err
		}
		installed[sum] = true
	}
	for line := range strings.Lines(string(seen)) {
		// By content: TestContainerStartWithAbsRuntimePath runs a copy.
		sum, exe, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !installed[sum] {
			return fmt.Errorf("a shim that is not of this column was at work: %s", exe)
		}
	}
	return nil
}

// exactly is a pattern for -test.run and -test.skip that matches these tests and no other.
func exactly(tests []string) string { return "^(" + strings.Join(tests, "|") + ")$" }
