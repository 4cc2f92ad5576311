package soak

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// series makes samples, one every ten seconds and fifty execs, of which set
// fills in the n-th.
func series(n int, set func(i int, s *Sample)) []Sample {
	var all []Sample
	for i := range n {
		s := Sample{
			At: time.Duration(i) * 10 * time.Second, Execs: 50 * i, Goroutines: 20, Threads: 8, FDs: 15, Children: 1,
			RSS: 12 << 20, Private: 4 << 20, Anonymous: 4 << 20,
		}
		set(i, &s)
		all = append(all, s)
	}
	return all
}

// growing names the figures that are said to grow.
func growing(samples []Sample) map[string]bool {
	found := map[string]bool{}
	for _, t := range trends(samples) {
		if t.Grows {
			found[t.Name] = true
		}
	}
	return found
}

func TestALeakIsSeen(t *testing.T) {
	noise := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name, figure string
		set          func(i int, s *Sample)
	}{
		{"a goroutine in ten samples", "goroutines", func(i int, s *Sample) { s.Goroutines += i / 10 }},
		{"a descriptor in five samples", "descriptors", func(i int, s *Sample) { s.FDs += i/5 + noise.IntN(3) }},
		{"a thread in ten samples", "threads", func(i int, s *Sample) { s.Threads += i / 10 }},
		{"a zombie in ten samples", "children", func(i int, s *Sample) { s.Children += i / 10 }},
		{"a KiB per exec in much noise", "private bytes", func(i int, s *Sample) { s.Private += s.Execs<<10 + noise.IntN(1<<20) }},
		{"64 KiB per sample", "anonymous bytes", func(i int, s *Sample) { s.Anonymous += i * 64 << 10 }},
	} {
		found := growing(series(60, tt.set))
		if !found[tt.figure] || len(found) != 1 {
			t.Errorf("%s: said to grow: %v, want %s", tt.name, found, tt.figure)
		}
	}
}

func TestWhatIsFlatIsNotBlamed(t *testing.T) {
	for seed := range uint64(500) {
		noise := rand.New(rand.NewPCG(seed, 0))
		found := growing(series(60, func(i int, s *Sample) {
			s.Goroutines += noise.IntN(4)
			s.FDs += noise.IntN(4)
			s.Threads += min(i, 4) // grow while it warms up
			s.Private += noise.IntN(2<<20) + min(i, 10)<<18
			s.RSS += noise.IntN(4 << 20)
		}))
		if len(found) > 0 {
			t.Errorf("seed %d: %v are said to grow", seed, found)
		}
	}
}

func TestFit(t *testing.T) {
	l := fit([]float64{1, 2, 3, 4, 5}, []float64{3, 5, 7, 9, 11})
	if math.Abs(l.slope-2) > 1e-9 || l.err > 1e-9 || math.Abs(l.rise-8) > 1e-9 {
		t.Errorf("%+v", l)
	}
	for _, xs := range [][]float64{nil, {1}, {1, 2}, {1, 1, 1}} {
		if l := fit(xs, make([]float64, len(xs))); l.grows(0) {
			t.Errorf("%v: %+v grows", xs, l)
		}
	}
}
