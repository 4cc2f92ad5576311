package bench

// The figures of a run: every sample, and what is made of them.

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Better says in which direction a figure is good.
type Better string

// The directions.
const (
	Lower  Better = "lower"
	Higher Better = "higher"
)

// Key names a figure: what was measured, with which runtime, at which parameter.
type Key struct {
	Measure string `json:"measure"`
	Metric  string `json:"metric"`
	Runtime string `json:"runtime"`
	// Param is the number in flight, of running processes, or 0.
	Param int `json:"param,omitempty"`
}

// Figure is one cell: a key, a column, and its samples.
type Figure struct {
	Key
	Column  string    `json:"column"`
	Title   string    `json:"title"`
	Unit    string    `json:"unit"`
	Better  Better    `json:"better"`
	Samples []float64 `json:"samples"`
	// Median is that of the samples; Spread is half the distance between the quartiles;
	// Ratio is the median's to that of the first shim, 0 where that has none.
	Median float64 `json:"median"`
	Spread float64 `json:"spread"`
	Ratio  float64 `json:"ratio"`
}

// Column is what was measured.
type Column struct {
	Name  string `json:"name"`
	About string `json:"about"`
}

// Result is a whole run.
type Result struct {
	Machine Machine   `json:"machine"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Rounds  int       `json:"rounds"`
	Quick   bool      `json:"quick,omitempty"`
	Columns []Column  `json:"columns"`
	Figures []*Figure `json:"figures"`
	// Targets are filled by CheckTargets.
	Targets []Verdict `json:"targets,omitempty"`
	// Took is where the time went.
	Took []Took `json:"took,omitempty"`
}

// Took is how long one measure took with one runtime.
type Took struct {
	Measure string  `json:"measure"`
	Runtime string  `json:"runtime"`
	Seconds float64 `json:"seconds"`
}

// Machine is where it was measured.
type Machine struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Arch   string `json:"arch"`
	Memory string `json:"memory"`
	// Cgroups are the versions that the run saw.
	Cgroups string `json:"cgroups,omitempty"`
	// State is what bundles, sockets and the runtime's state lay on.
	State string `json:"state,omitempty"`
}

func newResult(cfg Config) *Result {
	r := &Result{Machine: thisMachine(), Started: time.Now().UTC().Truncate(time.Second), Rounds: cfg.Rounds, Quick: cfg.Quick}
	r.Columns = append(r.Columns, Column{Name: Bare, About: "the OCI runtime alone, under a subreaper that waits for the process"})
	for _, s := range cfg.Shims {
		r.Columns = append(r.Columns, Column{Name: s.Name})
	}
	return r
}

func thisMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Arch: runtime.GOARCH, CPU: "unknown", State: stateKind()}
	if cgroups, err := readCgroupMounts(); err == nil {
		m.Cgroups = cgroups.String()
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.Memory = fmt.Sprintf("%.1f GiB", field(text, "MemTotal:")/(1<<20))
	}
	return m
}

func (r *Result) describe(column, about string) {
	for i := range r.Columns {
		if r.Columns[i].Name == column {
			r.Columns[i].About = about
		}
	}
}

// unit is how a metric is shown.
type unit struct {
	title  string
	unit   string
	better Better
}

// add notes a sample.
func (r *Result) add(k Key, col column, u unit, value float64) {
	f := r.find(k, col.name)
	if f == nil {
		f = &Figure{Key: k, Column: col.name, Title: u.title, Unit: u.unit, Better: u.better}
		r.Figures = append(r.Figures, f)
	}
	f.Samples = append(f.Samples, value)
}

func (r *Result) find(k Key, column string) *Figure {
	for _, f := range r.Figures {
		if f.Key == k && f.Column == column {
			return f
		}
	}
	return nil
}

// finish computes what follows from the samples.
func (r *Result) finish(took time.Duration) *Result {
	r.Seconds = took.Seconds()
	for _, f := range r.Figures {
		f.Median = quantile(f.Samples, 0.5)
		f.Spread = (quantile(f.Samples, 0.75) - quantile(f.Samples, 0.25)) / 2
	}
	const firstShim = 1 // column 0 is the bare runtime
	if len(r.Columns) <= firstShim {
		return r
	}
	for _, f := range r.Figures {
		if first := r.find(f.Key, r.Columns[firstShim].Name); first != nil && first.Median != 0 {
			f.Ratio = f.Median / first.Median
		}
	}
	return r
}

// quantile interpolates between the samples; of none it is 0.
func quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(samples))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func durations(ds []time.Duration) []float64 {
	out := make([]float64, len(ds))
	for i, d := range ds {
		out[i] = milliseconds(d)
	}
	return out
}
