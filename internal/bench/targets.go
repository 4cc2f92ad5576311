package bench

// The targets that lark's shim is held to: ratios in one run.

import (
	"fmt"
	"slices"
	"strings"
)

// Verdict is a target and how it was met.
type Verdict struct {
	What string `json:"what"`
	// Runtime is set where the target is one for every runtime.
	Runtime string  `json:"runtime,omitempty"`
	Against string  `json:"against"`
	Limit   float64 `json:"limit"`
	AtLeast bool    `json:"at_least,omitempty"` // else at most
	Value   float64 `json:"value"`
	Met     bool    `json:"met"`
	// Missing is true when the figures for it were not measured.
	Missing bool `json:"missing,omitempty"`
}

// target is a ratio of two figures' medians. over names the column of the denominator,
// overKey its key where it is another.
type target struct {
	what    string
	key     Key
	over    string // againstBare, againstOther, againstSelf or againstNumber
	overKey Key
	limit   float64
	atLeast bool
}

// What a target is held against.
const (
	againstBare   = "the bare runtime"
	againstOther  = "the other shim"
	againstSelf   = "itself"
	againstNumber = "a number"
)

// anyRuntime stands for every runtime that the figure was measured with, stubRuntime for
// the stub alone, realRuntimes for all but the stub.
const (
	anyRuntime  = "*"
	stubRuntime = "stub"
)

// targets as they were set. Limits for the wall time differ by runtime: crun leaves less
// room than runc.
func targets() []target {
	exec := func(metric, rt string, flight int) Key {
		return Key{Measure: "exec", Metric: metric, Runtime: rt, Param: flight}
	}
	var ts []target
	for _, flight := range []int{32, 128} {
		ts = append(ts,
			target{what: fmt.Sprintf("wall per exec, %d in flight, runc", flight), key: exec("wall", "runc", flight), over: againstBare, limit: 1.15},
			target{what: fmt.Sprintf("wall per exec, %d in flight, crun", flight), key: exec("wall", "crun", flight), over: againstBare, limit: 1.25})
	}
	for _, flight := range []int{1, 32, 128} {
		ts = append(ts, target{what: fmt.Sprintf("shim CPU per exec, %d in flight", flight), key: exec("cpu", anyRuntime, flight), over: againstOther, limit: 0.35})
	}
	memory := func(metric string) Key { return Key{Measure: "memory", Metric: metric, Runtime: anyRuntime} }
	const proportionalMB = 3.9 // what containerd's shim in Rust states
	return append(ts,
		target{what: "execs per second through the stub, 128 in flight", key: exec("rate", stubRuntime, 128), over: againstOther, limit: 3, atLeast: true},
		target{what: "an exec of 100 at once, median", key: Key{Measure: "burst", Metric: "median", Runtime: anyRuntime, Param: burst}, over: againstOther, limit: 0.6},
		target{what: "execs per second of 100 at once", key: Key{Measure: "burst", Metric: "rate", Runtime: anyRuntime, Param: burst}, over: againstOther, limit: 1, atLeast: true},
		target{what: "create, start, delete through the stub, one by one", key: Key{Measure: "task", Metric: "wall", Runtime: stubRuntime, Param: 1}, over: againstOther, limit: 0.5},
		target{what: "create, start, delete through the stub, at once", key: Key{Measure: "task", Metric: "wall", Runtime: stubRuntime, Param: atOnce}, over: againstOther, limit: 0.5},
		target{what: "start helper", key: Key{Measure: "start", Metric: "helper", Runtime: anyRuntime}, over: againstOther, limit: 0.5},
		target{what: "private memory at rest", key: memory(atRest + ".private"), over: againstOther, limit: 0.4},
		target{what: "private memory after 1,000 execs", key: memory(afterExecs + ".private"), over: againstOther, limit: 0.4},
		target{what: "private memory after a further 10,000 execs", key: memory(afterMore + ".private"), over: againstSelf, overKey: memory(afterExecs + ".private"), limit: 1.05},
		target{what: "proportional memory at rest, ten shims, MB", key: memory(atRest + ".proportional"), over: againstNumber, limit: proportionalMB},
		target{what: "private memory of each further container", key: Key{Measure: "added", Metric: "private", Runtime: anyRuntime}, over: againstOther, limit: 0.3},
		target{what: "CPU of one exit beside 4,096 processes, to beside one", key: Key{Measure: "exit", Metric: "cpu", Runtime: anyRuntime, Param: 4096}, over: againstSelf, overKey: Key{Measure: "exit", Metric: "cpu", Runtime: anyRuntime, Param: 1}, limit: 1.2},
		target{what: "threads after 128 execs in flight", key: exec("threads", anyRuntime, 128), over: againstNumber, limit: 10},
		target{what: "standard output, MB/s", key: Key{Measure: "stdout", Metric: "rate", Runtime: anyRuntime}, over: againstOther, limit: 1.5, atLeast: true},
		target{what: "shim CPU per MB of output", key: Key{Measure: "stdout", Metric: "cpu", Runtime: anyRuntime}, over: againstOther, limit: 0.5},
	)
}

// CheckTargets holds the shim called lark against the one called other (the first that is
// not lark's, if empty) and the bare runtime. A target over several runtimes is checked
// with each. It fails when there is no such shim.
func (r *Result) CheckTargets(lark, other string) error {
	for _, name := range []string{lark, other} {
		if name != "" && !slices.ContainsFunc(r.Columns, func(c Column) bool { return c.Name == name }) {
			return fmt.Errorf("no shim is called %q", name)
		}
	}
	if other == "" {
		for _, c := range r.Columns[1:] {
			if c.Name != lark {
				other = c.Name
				break
			}
		}
	}
	r.Targets = nil
	for _, t := range targets() {
		found := false
		for _, f := range r.Figures {
			if f.Column != lark || !t.key.matches(f.Key) {
				continue
			}
			found = true
			r.Targets = append(r.Targets, r.judge(t, f, other))
		}
		if !found {
			r.Targets = append(r.Targets, Verdict{What: t.what, Against: t.over, Limit: t.limit, AtLeast: t.atLeast, Missing: true})
		}
	}
	return nil
}

// matches is true when the key is that of a figure, for any or the one runtime.
func (k Key) matches(f Key) bool {
	if k.Runtime == anyRuntime {
		k.Runtime = f.Runtime
	}
	return k == f
}

func (r *Result) judge(t target, f *Figure, other string) Verdict {
	v := Verdict{What: t.what, Against: t.over, Limit: t.limit, AtLeast: t.atLeast, Value: f.Median}
	if t.key.Runtime == anyRuntime {
		v.Runtime = f.Runtime
	}
	column, key := other, f.Key
	switch t.over {
	case againstBare:
		column = Bare
	case againstSelf:
		column = f.Column
		key = t.overKey
		key.Runtime = f.Runtime
	case againstOther:
		v.Against = other
	}
	if t.over != againstNumber {
		over := r.find(key, column)
		if over == nil || over.Median == 0 {
			v.Missing = true
			return v
		}
		v.Value = f.Median / over.Median
	}
	v.Met = v.Value <= v.Limit
	if t.atLeast {
		v.Met = v.Value >= v.Limit
	}
	return v
}

// Missed is true when a target that was measured is not met.
func (r *Result) Missed() bool {
	for _, v := range r.Targets {
		if !v.Met && !v.Missing {
			return true
		}
	}
	return false
}

// verdicts is the table of targets, as text.
func (r *Result) verdicts() string {
	if len(r.Targets) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-72s%-26s%10s%10s\n", "targets", "against", "limit", "measured")
	for _, v := range r.Targets {
		bound, word := "<= ", "met"
		if v.AtLeast {
			bound = ">= "
		}
		if !v.Met {
			word = "MISSED"
		}
		value := fmt.Sprintf("%.2f", v.Value)
		if v.Missing {
			value, word = "-", "not measured"
		}
		what := v.What
		if v.Runtime != "" {
			what += ", " + v.Runtime
		}
		fmt.Fprintf(&b, "  %-70s%-26s%10s%10s  %s\n", what, v.Against, bound+short(v.Limit), value, word)
	}
	return b.String()
}

// goal is a target with its verdicts, one for each runtime.
type goal struct {
	What, Limit string
	Verdicts    []Verdict
}

// goals brings together the verdicts that differ in nothing but the runtime.
func (r *Result) goals() []goal {
	var all []goal
	for _, v := range r.Targets {
		if n := len(all); n == 0 || all[n-1].What != v.What {
			all = append(all, goal{What: v.What, Limit: v.limit()})
		}
		last := &all[len(all)-1]
		last.Verdicts = append(last.Verdicts, v)
	}
	return all
}

// limit is the limit with what it is a multiple of.
func (v Verdict) limit() string {
	text := "≤ "
	if v.AtLeast {
		text = "≥ "
	}
	text += fmt.Sprintf("%g", v.Limit)
	if v.Against != againstNumber {
		text += " × " + v.Against
	}
	return text
}

// Word is how a target fared.
func (v Verdict) Word() string {
	switch {
	case v.Missing:
		return "not measured"
	case v.Met:
		return "met"
	}
	return "missed"
}

// Measured is the value, with the runtime where there are several.
func (v Verdict) Measured() string {
	text := "–"
	if !v.Missing {
		text = fmt.Sprintf("%.2f", v.Value)
		if v.Against == againstNumber {
			text = fmt.Sprintf("%.3g", v.Value)
		}
	}
	if v.Runtime != "" {
		text = v.Runtime + " " + text
	}
	return text
}

// Word is how all of them fared; what has no figure counts only where none has one.
func (g goal) Word() string {
	words := map[string]bool{}
	for _, v := range g.Verdicts {
		words[v.Word()] = true
	}
	switch {
	case words["met"] && words["missed"]:
		return "partly met"
	case words["missed"]:
		return "missed"
	case words["met"]:
		return "met"
	}
	return "not measured"
}

// targetsMarkdown is the table of targets for PERFORMANCE.md: a missed one's figure is in bold.
func (r *Result) targetsMarkdown() string {
	if len(r.Targets) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("| what | target | measured | |\n|---|---|---|---|\n")
	for _, g := range r.goals() {
		var values []string
		for _, v := range g.Verdicts {
			text := v.Measured()
			if v.Word() == "missed" {
				text = "**" + text + "**"
			}
			values = append(values, text)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", g.What, g.Limit, strings.Join(values, ", "), g.Word())
	}
	return b.String()
}
