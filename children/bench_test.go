package children

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inFlight are the starts in flight under which the cost of one exit is looked at.
var inFlight = []int{1, 8, 64, 512}

// busy makes an Owner with as many starts in flight: windows that are open, each with a call that runs.
func busy(tb testing.TB, starts int) (o *Owner, over func()) {
	o = owner(tb, kernel{})
	ctx, cancel := context.WithCancel(context.Background())
	var windows []*Window
	var calls []*Process
	done := make(chan struct{}, starts)
	for range starts {
		windows = append(windows, o.Begin(o.OwnNamespace()))
		p, err := o.Start(exec.Command("sleep", "3600"))
		if err != nil {
			tb.Fatal(err)
		}
		calls = append(calls, p)
		go func() { _, _ = p.Wait(ctx); done <- struct{}{} }()
	}
	return o, func() {
		cancel()
		for _, w := range windows {
			w.Close()
		}
		for _, p := range calls {
			<-done
			_ = p.Signal(unix.SIGKILL)
			_, _ = p.Wait(context.Background())
		}
	}
}

// exits makes n children, kept dead by a window, and gives the time to claim, wait for and reap each.
func exits(tb testing.TB, o *Owner, n int) []time.Duration {
	w := o.Begin(o.OwnNamespace())
	defer w.Close()
	pids := run(tb, o, crowd(n))
	took := make([]time.Duration, 0, n)
	for _, pid := range pids {
		began := time.Now()
		child, err := w.Claim(pid)
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := child.Wait(context.Background()); err != nil {
			tb.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	return took
}

// BenchmarkExit is the cost of one exit, from the claim to the status, with more and more starts in flight. It is to be
// flat: the seed's scheme copies each exit to every start in flight.
func BenchmarkExit(b *testing.B) {
	for _, starts := range inFlight {
		b.Run(fmt.Sprint(starts), func(b *testing.B) {
			o, over := busy(b, starts)
			defer over()
			var took []time.Duration
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; left -= 200 {
				took = append(took, exits(b, o, min(left, 200))...)
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "median-ns/exit")
		})
	}
}

// flatness is the most that one exit may cost with 512 starts in flight, in terms of what it costs with one.
const flatness = 1.3

// The cost of an exit does not grow with the starts in flight.
func TestExitIsFlat(t *testing.T) {
	const each, rounds = 200 / thin, 3
	medians := make(map[int][]time.Duration)
	for range rounds { // alternating, so that a slow moment of the machine hits all
		for _, starts := range inFlight {
			t.Run(fmt.Sprint(starts), func(t *testing.T) { // an Owner of its own
				o, over := busy(t, starts)
				took := exits(t, o, each)
				over()
				slices.Sort(took)
				medians[starts] = append(medians[starts], took[len(took)/2])
			})
		}
	}
	base := best(medians[1])
	for _, starts := range inFlight {
		ratio := float64(best(medians[starts])) / float64(base)
		t.Logf("%3d starts in flight: %v per exit, %.2f", starts, best(medians[starts]), ratio)
		if ratio > flatness {
			t.Errorf("not flat: %.2f", ratio)
		}
	}
}

// best is the least: what the machine adds is never negative.
func best(medians []time.Duration) time.Duration { return slices.Min(medians) }
