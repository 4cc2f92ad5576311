package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/larkshim/lark/e2e/suite/gotest"
)

// verdict on one test, from its results with containerd's shim and with the subject.
type verdict int

const (
	fine    verdict = iota // both pass, or both skip
	behind                 // containerd's shim passes (or skips), the subject does not
	ahead                  // the other way round
	neither                // fails with both, for a reason written in known.go
	obscure                // fails with both and nobody has said why
)

func judge(test string, upstream, subject gotest.Result) verdict {
	switch {
	case upstream.Outcome == subject.Outcome && (subject.Outcome == gotest.Pass || subject.Outcome == gotest.Skip):
		return fine
	case subject.Outcome == gotest.Pass:
		return ahead
	case upstream.Outcome == gotest.Pass || upstream.Outcome == gotest.Skip:
		return behind
	case upstream.Outcome == gotest.Fail && subject.Outcome != gotest.Fail:
		return behind // to hang or to bring the suite down is worse than to fail
	case slices.ContainsFunc(subject.FailedSubtests, func(sub string) bool { return !slices.Contains(upstream.FailedSubtests, sub) }):
		return behind
	case reasonFor(test, upstream, subject) != "":
		return neither
	}
	return obscure
}

// report prints the columns, writes the output of what failed to logs, and returns an error if the subject is behind
// anywhere. The first column is containerd's.
func report(w io.Writer, logs string, tests []string, all []*column) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	heading := []string{"test"}
	for _, c := range all {
		heading = append(heading, c.Title)
	}
	fmt.Fprintln(table, strings.Join(heading, "\t"))
	var failures, notes []string
	for _, test := range tests {
		line := []string{test}
		for _, c := range all {
			r := c.results[test]
			line = append(line, fmt.Sprintf("%s %.1fs", r.Outcome, r.Elapsed.Seconds()))
		}
		fmt.Fprintln(table, strings.Join(line, "\t"))
		failed, noted := compare(test, all)
		failures, notes = append(failures, failed...), append(notes, noted...)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, c := range all {
		fmt.Fprintf(w, "%-12s %s in %v\n", c.Title, tally(c.results), c.elapsed.Round(time.Second))
	}
	fmt.Fprintln(w)
	for _, note := range slices.Compact(notes) {
		fmt.Fprintln(w, note)
	}
	if err := writeFailures(logs, tests, all); err != nil {
		return err
	}
	if len(failures) > 0 {
		return fmt.Errorf("the shim is behind containerd's:\n  %s\noutput in %s", strings.Join(failures, "\n  "), logs)
	}
	fmt.Fprintln(w, "The shim is nowhere behind containerd's.")
	return nil
}

// compare holds the subject's columns against containerd's, for one test.
func compare(test string, all []*column) (failures, notes []string) {
	upstream := all[0].results[test].Outcome
	for _, c := range all[1:] {
		subject := c.results[test].Outcome
		switch judge(test, all[0].results[test], c.results[test]) {
		case behind:
			failures = append(failures, fmt.Sprintf("%s: %s %s, upstream %s %v", test, c.Title, subject, upstream, c.results[test].FailedSubtests))
		case obscure:
			failures = append(failures, fmt.Sprintf("%s: fails with both (%s, upstream %s), and not for a reason that known.go has", test, subject, upstream))
		case ahead:
			notes = append(notes, fmt.Sprintf("passes only with the shim tested: %s (upstream %s)", test, upstream))
		case neither:
			notes = append(notes, fmt.Sprintf("fails with both: %s (%s): %s", test, upstream, reasonFor(test, all[0].results[test], c.results[test])))
		case fine:
			if subject == gotest.Skip {
				notes = append(notes, fmt.Sprintf("skipped by itself with both: %s: %s", test, skipReason(c.results[test])))
			}
		}
	}
	return slices.Compact(failures), slices.Compact(notes)
}

// tally counts outcomes, e.g. "101 pass, 3 FAIL, 2 skip".
func tally(results map[string]gotest.Result) string {
	counts := map[gotest.Outcome]int{}
	for _, r := range results {
		counts[r.Outcome]++
	}
	var parts []string
	for _, outcome := range []gotest.Outcome{gotest.Pass, gotest.Fail, gotest.Hang, gotest.Crash, gotest.Skip} {
		if counts[outcome] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[outcome], outcome))
		}
	}
	return strings.Join(parts, ", ")
}

// skipReason is what the test printed before it skipped itself.
func skipReason(r gotest.Result) string {
	for _, line := range slices.Backward(r.Output) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return line
		}
	}
	return "no reason given"
}

// writeFailures writes what tests that did not pass had printed, a file for each.
func writeFailures(logs string, tests []string, all []*column) error {
	for _, c := range all {
		for _, test := range tests {
			r := c.results[test]
			if r.Outcome == gotest.Pass || r.Outcome == gotest.Skip {
				continue
			}
			name := fmt.Sprintf("client-%s-%s.txt", strings.ReplaceAll(c.Title, " ", "-"), test)
			if err := os.WriteFile(filepath.Join(logs, name), []byte(strings.Join(r.Output, "\n")+"\n"), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
