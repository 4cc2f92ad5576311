// Package gotest runs a compiled Go test program to its end even where some of its tests hang or bring the program down:
// those are noted, and the rest runs in another go, until every test has a result.
package gotest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Outcome is what became of a test.
type Outcome string

const (
	Pass Outcome = "pass"
	Fail Outcome = "FAIL"
	Skip Outcome = "skip"
	// Hang: it ran, and nothing in the whole program ended or began within Suite.Stall.
	Hang Outcome = "HANG"
	// Crash: it was running when the program ended.
	Crash Outcome = "CRASH"
)

// Result is what became of one top-level test and its subtests.
type Result struct {
	Outcome Outcome
	Elapsed time.Duration
	Output  []string // lines, the newest at the end, at most keptLines
	// Subtests that failed, by their full names.
	FailedSubtests []string
}

const (
	// keptLines of a test's output are enough to see why it failed; a chatty test may print a daemon's whole log.
	keptLines = 400
	// longestLine bounds one event; containerd logs whole specs in one line.
	longestLine = 16 << 20
	// fruitless attempts in a row, ones that gave no result at all, mean the program does not start.
	fruitless = 3
)

// Suite is a test program.
type Suite struct {
	// Tests are the names of all top-level tests to be run.
	Tests []string
	// Start runs the program without the tests in skip and writes events of test2json to out. It must return, and leave
	// nothing running, soon after ctx ends.
	Start func(ctx context.Context, skip []string, out io.Writer) error
	// Stall is how long nothing may begin or end before the tests that run are held to hang.
	Stall time.Duration
	// Progress, if set, is told each result as it comes.
	Progress func(test string, result Result)
}

// event is what test2json prints.
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

var errStalled = errors.New("no test began or ended for too long")

// Run returns a result for every test of the suite.
func (s *Suite) Run(ctx context.Context) (map[string]Result, error) {
	r := &run{suite: s, results: map[string]Result{}}
	for empty := 0; len(r.results) < len(s.Tests); {
		before := len(r.results)
		err := r.attempt(ctx)
		if ctx.Err() != nil {
			return r.results, ctx.Err()
		}
		if len(r.results) > before {
			empty = 0
		} else if empty++; empty == fruitless {
			return r.results, fmt.Errorf("the tests do not run: %w\n%s", err, strings.Join(r.stray, "\n"))
		}
	}
	return r.results, nil
}

// run is the state over all attempts.
type run struct {
	suite   *Suite
	results map[string]Result
	// The rest is of one attempt.
	running map[string]*Result // begun and not ended, by top-level name
	paused  map[string]bool
	stray   []string // output of no test
}

func (r *run) attempt(ctx context.Context) error {
	r.running, r.paused, r.stray = map[string]*Result{}, map[string]bool{}, nil
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(r.suite.Stall, func() { cancel(errStalled) })
	defer stall.Stop()

	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := r.suite.Start(ctx, slices.Sorted(maps.Keys(r.results)), writer)
		writer.Close()
		ended <- err
	}()
	lines := bufio.NewScanner(reader)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		if r.take(lines.Bytes()) {
			stall.Reset(r.suite.Stall)
		}
	}
	scanned := lines.Err()
	reader.CloseWithError(scanned)
	err := errors.Join(<-ended, scanned)

	verdict := Crash
	if errors.Is(context.Cause(ctx), errStalled) {
		verdict, err = Hang, errors.Join(err, errStalled)
	}
	for test, result := range r.running {
		// A paused test has not come to its turn (t.Parallel): it gets it in the next attempt.
		if !r.paused[test] {
			result.Outcome, result.Output = verdict, append(result.Output, r.stray...)
			r.settle(test, *result)
		}
	}
	return err
}

// take handles one line and tells whether a test began or ended.
func (r *run) take(line []byte) bool {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		r.stray = keep(r.stray, string(line))
		return false
	}
	if e.Test == "" {
		if e.Action == "output" {
			r.stray = keep(r.stray, strings.TrimRight(e.Output, "\n"))
		}
		return false
	}
	top, _, isSub := strings.Cut(e.Test, "/")
	switch e.Action {
	case "run":
		if !isSub {
			r.running[top] = &Result{}
		}
	case "pause":
		r.paused[top] = r.paused[top] || !isSub
	case "cont":
		if !isSub {
			delete(r.paused, top)
		}
	case "output":
		if result := r.running[top]; result != nil {
			result.Output = keep(result.Output, strings.TrimRight(e.Output, "\n"))
		}
		return false
	case "pass", "fail", "skip":
		r.end(top, e, isSub)
	}
	return true
}

func (r *run) end(top string, e event, isSub bool) {
	result := r.running[top]
	if result == nil {
		return
	}
	if isSub {
		if e.Action == "fail" {
			result.FailedSubtests = append(result.FailedSubtests, e.Test)
		}
		return
	}
	result.Outcome = map[string]Outcome{"pass": Pass, "fail": Fail, "skip": Skip}[e.Action]
	result.Elapsed = time.Duration(e.Elapsed * float64(time.Second))
	delete(r.running, top)
	r.settle(top, *result)
}

func (r *run) settle(test string, result Result) {
	if !slices.Contains(r.suite.Tests, test) {
		return
	}
	r.results[test] = result
	if r.suite.Progress != nil {
		r.suite.Progress(test, result)
	}
}

func keep(lines []string, line string) []string {
	if len(lines) == keptLines {
		lines = lines[1:]
	}
	return append(lines, line)
}
