package soak

// Does a series of samples grow? A straight line is laid through it by least
// squares, and the line is believed only where its slope stands out of the
// scatter of the samples around it.

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

const (
	// warmUp is the part of the samples, from the beginning, that is not judged:
	// buffers, threads and the heap reach their sizes then.
	warmUp = 0.2
	// fewest samples that a line is laid through.
	fewest = 5
	// believed is how many standard errors a slope must be from zero. At three,
	// one flat series in some hundreds looks as if it grew, and the tolerances
	// have to be exceeded besides.
	believed = 3
)

// Tolerances: how much the fitted line may rise over the time that is judged,
// however long that is. A leak per exec or per container rises without end; what
// stays below these after hundreds of execs is none.
const (
	allowedCount  = 3       // goroutines, threads, descriptors: a connection more or less
	allowedMemory = 1 << 20 // bytes: the collector's own tables move by some hundred KiB
)

// line is what was fitted.
type line struct {
	slope, err float64 // per unit of x, and its standard error
	rise       float64 // over the span of x
	n          int
}

// fit lays a line through the points.
func fit(xs, ys []float64) line {
	n := float64(len(xs))
	if len(xs) < fewest {
		return line{n: len(xs)}
	}
	var mx, my float64
	for i := range xs {
		mx += xs[i] / n
		my += ys[i] / n
	}
	var sxx, sxy float64
	for i := range xs {
		sxx += (xs[i] - mx) * (xs[i] - mx)
		sxy += (xs[i] - mx) * (ys[i] - my)
	}
	if sxx == 0 {
		return line{n: len(xs)}
	}
	slope := sxy / sxx
	var rest float64
	for i := range xs {
		d := ys[i] - my - slope*(xs[i]-mx)
		rest += d * d
	}
	return line{
		slope: slope, err: math.Sqrt(rest / (n - 2) / sxx),
		rise: slope * (slices.Max(xs) - slices.Min(xs)), n: len(xs),
	}
}

// grows says whether the line rises by more than is allowed, and is believed.
func (l line) grows(allowed float64) bool {
	return l.n >= fewest && l.rise > allowed && l.slope > believed*l.err
}

// Trend is how one figure of the pod's shim went over the soak.
type Trend struct {
	Name    string  `json:"name"`
	First   float64 `json:"first"` // of the samples that are judged
	Last    float64 `json:"last"`
	Max     float64 `json:"max"`
	PerKilo float64 `json:"per_1000_execs"`
	PerMin  float64 `json:"per_minute"`
	// Rise is that of the line by time, over the span that is judged; Allowed is
	// how much that may be.
	Rise    float64 `json:"rise"`
	Allowed float64 `json:"allowed"`
	Samples int     `json:"samples"` // that are judged
	Grows   bool    `json:"grows"`
}

// figure is one of the figures that a sample has.
type figure struct {
	name    string
	allowed float64
	of      func(Sample) float64
}

var figures = []figure{
	{"goroutines", allowedCount, func(s Sample) float64 { return float64(s.Goroutines) }},
	{"threads", allowedCount, func(s Sample) float64 { return float64(s.Threads) }},
	{"descriptors", allowedCount, func(s Sample) float64 { return float64(s.FDs) }},
	{"children", allowedCount, func(s Sample) float64 { return float64(s.Children) }},
	{"private bytes", allowedMemory, func(s Sample) float64 { return float64(s.Private) }},
	{"anonymous bytes", allowedMemory, func(s Sample) float64 { return float64(s.Anonymous) }},
}

// trends judges every figure of the samples, which are in order of time. A
// figure grows if its line by time does, or its line by execs.
func trends(samples []Sample) []Trend {
	judged := samples[min(len(samples), int(math.Ceil(warmUp*float64(len(samples))))):]
	var all []Trend
	for _, f := range figures {
		var minutes, kilos, ys []float64
		for _, s := range judged {
			minutes = append(minutes, s.At.Minutes())
			kilos = append(kilos, float64(s.Execs)/1000)
			ys = append(ys, f.of(s))
		}
		t := Trend{Name: f.name, Allowed: f.allowed, Samples: len(judged)}
		if len(ys) > 0 {
			t.First, t.Last, t.Max = ys[0], ys[len(ys)-1], slices.Max(ys)
		}
		byTime, byExecs := fit(minutes, ys), fit(kilos, ys)
		t.PerMin, t.PerKilo, t.Rise = byTime.slope, byExecs.slope, byTime.rise
		t.Grows = byTime.grows(f.allowed) || byExecs.grows(f.allowed)
		all = append(all, t)
	}
	return all
}

// String is a line of the closing table.
func (t Trend) String() string {
	return fmt.Sprintf("%-16s %12.0f %12.0f %+14.1f %+14.1f %+12.1f %12.0f  %s",
		t.Name, t.First, t.Last, t.PerKilo, t.PerMin, t.Rise, t.Allowed, cmp.Or(map[bool]string{true: "GROWS"}[t.Grows], "flat"))
}
