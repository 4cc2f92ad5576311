// Package calibrate tells tests how slow the machine is, here and now, for those
// that must give a time which cannot be a minute: the deadline of a call that
// hangs, beside which other calls have to be answered.
package calibrate

import (
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// nominal is what starting a process costs a CPU of the machine for which
	// tests state their times: a quiet one.
	nominal = 2 * time.Millisecond
	// sample is how long processes are started to see what it costs: several
	// periods of a CPU quota, 100 ms each (sched-bwc.rst of the kernel).
	sample = 300 * time.Millisecond
	// most bounds the factor, so that a moment at which the machine stood still
	// does not make a test wait for hours.
	most = 20
)

var measured = sync.OnceValue(measure)

// Stretch multiplies d by how much slower processes start than on the nominal
// machine, at least by 1 and at most by 20. It is measured by the first call,
// which starts processes: it must come before a children.Owner, which would reap
// them.
func Stretch(d time.Duration) time.Duration {
	return time.Duration(float64(d) * measured())
}

// measure starts processes on every CPU for a while. All CPUs, because a quota
// and busy loops leave one program alone more than they leave several.
func measure() float64 {
	var started atomic.Int64
	var all sync.WaitGroup
	begun := time.Now()
	for range runtime.NumCPU() {
		all.Go(func() {
			for time.Since(begun) < sample {
				if err := exec.Command("true").Run(); err != nil {
					return // a machine without it is no slower: the factor is the bound's
				}
				started.Add(1)
			}
		})
	}
	all.Wait()
	return factor(time.Since(begun), runtime.NumCPU(), int(started.Load()))
}

// factor is how much more than nominal each of so many starts cost.
func factor(took time.Duration, cpus, started int) float64 {
	if started == 0 {
		return most
	}
	each := took * time.Duration(cpus) / time.Duration(started)
	return min(most, max(1, float64(each)/float64(nominal)))
}
