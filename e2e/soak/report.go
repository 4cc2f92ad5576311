package soak

// What a soak has shown: for a reader, and for a program.

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// most is how many violations or problems are printed.
const most = 30

// mostLog is how many lines of the log are.
const mostLog = 60

// Result is what a soak has shown.
type Result struct {
	Version string        `json:"containerd"`
	Shim    string        `json:"shim"`
	Seed    uint64        `json:"seed"`
	Took    time.Duration `json:"took_ns"`
	Waves   int           `json:"waves"`
	// Most is how many containers there were at once, the pod's own not counted.
	Most       int            `json:"most_containers"`
	Containers int            `json:"containers"`
	Execs      int            `json:"execs"`
	PodExecs   int            `json:"pod_execs"` // of these, in the shim that is measured
	Exits      int            `json:"exits"`
	Events     int            `json:"events"`
	Refused    int            `json:"events_refused"`  // that did not get through at first, containerd being dead
	Repeated   int            `json:"events_repeated"` // that got through and whose answer did not
	Faults     map[string]int `json:"faults"`
	// Violations are of the order of events; Problems all else: calls that hung or
	// failed, wrong answers, lost output, things left behind.
	Violations []string `json:"violations"`
	Problems   []string `json:"problems"`
	Left       int      `json:"left_over"` // of the problems
	Trends     []Trend  `json:"trends"`
	// Growth says of what there is more, where something grows.
	Growth  []string `json:"growth,omitempty"`
	Samples []Sample `json:"-"`
	// Log are the last warnings and errors of containerd and the shims, where
	// something was wrong.
	Log []string `json:"-"`
}

func (s *soak) result(samples []Sample, waves int) *Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &Result{
		Version: s.d.Version(), Shim: filepath.Base(s.cfg.Shim), Seed: s.cfg.Seed, Took: time.Since(s.began),
		Waves: waves, Most: s.most, Containers: s.counts.Containers, Execs: s.counts.Execs, PodExecs: int(s.podExecs.Load()),
		Exits: s.counts.Exits, Events: s.counts.Events, Faults: s.faults, Problems: s.problems,
		Samples: samples, Trends: trends(samples),
	}
	s.tap.mu.Lock()
	r.Refused, r.Repeated = s.tap.failed, s.tap.repeated
	s.tap.mu.Unlock()
	for _, v := range s.found {
		r.Violations = append(r.Violations, v.String())
	}
	for _, p := range s.problems {
		if strings.HasPrefix(p, "left over: ") {
			r.Left++
		}
	}
	if len(samples) > 0 && r.grows() {
		r.Growth = more(samples[0], samples[len(samples)-1])
	}
	if r.Failed() {
		r.Log = complaints(s.d.LogPath())
	}
	return r
}

// complaints are the last lines of a log that tell of more than the usual.
func complaints(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return []string{err.Error()}
	}
	var lines []string
	for l := range strings.Lines(string(b)) {
		low := strings.ToLower(l)
		if strings.Contains(low, "level=warn") || strings.Contains(low, "level=error") || strings.Contains(low, "leaked shim") || strings.Contains(low, "disconnected") {
			lines = append(lines, strings.TrimSpace(l))
		}
	}
	return lines[max(0, len(lines)-mostLog):]
}

func (r *Result) grows() bool {
	return slices.ContainsFunc(r.Trends, func(t Trend) bool { return t.Grows })
}

// Failed says whether anything was wrong.
func (r *Result) Failed() bool {
	return len(r.Violations)+len(r.Problems) > 0 || r.grows()
}

// Table is the closing table.
func (r *Result) Table() string {
	var b strings.Builder
	for _, l := range r.Log {
		fmt.Fprintln(&b, "log:", l)
	}
	for i, v := range r.Violations[:min(most, len(r.Violations))] {
		fmt.Fprintf(&b, "violation %d: %s\n", i+1, v)
	}
	for i, p := range r.Problems[:min(most, len(r.Problems))] {
		fmt.Fprintf(&b, "problem %d: %s\n", i+1, p)
	}
	for _, g := range r.Growth {
		fmt.Fprintln(&b, "more than at first:", g)
	}
	fmt.Fprintf(&b, "soak: %s under containerd %s, %.0f s, seed %d\n", r.Shim, r.Version, r.Took.Seconds(), r.Seed)
	row := func(name string, n int) { fmt.Fprintf(&b, "  %-40s %10d\n", name, n) }
	row("waves", r.Waves)
	row("containers", r.Containers)
	row("most containers at once", r.Most+1)
	row("execs", r.Execs)
	row("execs in the pod's shim", r.PodExecs)
	row("processes (inits and execs)", r.Containers+r.Execs)
	row("events", r.Events)
	row("events refused while containerd was dead", r.Refused)
	row("events repeated", r.Repeated)
	for _, kind := range slices.Sorted(maps.Keys(r.Faults)) {
		row("fault: "+kind, r.Faults[kind])
	}
	row("violations", len(r.Violations))
	row("problems", len(r.Problems))
	row("left over", r.Left)
	fmt.Fprintf(&b, "  the pod's shim at rest, %d samples after the warm-up (%d in all):\n", r.judged(), len(r.Samples))
	fmt.Fprintf(&b, "    %-16s %12s %12s %14s %14s %12s %12s\n", "", "first", "last", "per 1000 execs", "per minute", "rise", "allowed")
	for _, t := range r.Trends {
		fmt.Fprintf(&b, "    %s\n", t)
	}
	return b.String()
}

func (r *Result) judged() int {
	if len(r.Trends) == 0 {
		return 0
	}
	return r.Trends[0].Samples
}

// JSON is the same in one line, for a program.
func (r *Result) JSON() string {
	if r.Violations == nil {
		r.Violations = []string{}
	}
	if r.Problems == nil {
		r.Problems = []string{}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
