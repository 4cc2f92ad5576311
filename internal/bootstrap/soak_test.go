package bootstrap

import (
	"context"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	apitypes "github.com/containerd/containerd/api/types/task"

	"github.com/larkshim/lark/internal/taskapi"
)

const (
	// soakCalls show a slope; LARK_SOAK=1 makes that a million.
	soakCalls = 200_000
	longSoak  = 1_000_000
	// soakCallers call side by side on one connection, which is what containerd has.
	soakCallers = 16
	// soakParts is how often the shim is measured.
	soakParts = 10
	// maxSlope is what a call may leave behind, in bytes of heap: an entry that stays in
	// the library's table costs some fifty (W14), and what is left of the heap after a
	// collection varies by some ten kilobytes.
	maxSlope = 0.5
)

func (f *fake) State(context.Context, *task.StateRequest) (*task.StateResponse, error) {
	return &task.StateResponse{ID: "c1", Bundle: f.serving.Bundle, Pid: 7, Status: apitypes.Status_RUNNING}, nil
}

// Pids collects the garbage and tells what is left, as if they were pids: bytes of
// heap, goroutines, and the memory limit in MiB.
func (f *fake) Pids(context.Context, *task.PidsRequest) (*task.PidsResponse, error) {
	runtime.GC()
	runtime.GC() // what the first has only marked to be finalised
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	tell := func(n int64) *apitypes.ProcessInfo { return &apitypes.ProcessInfo{Pid: uint32(n)} }
	return &task.PidsResponse{Processes: []*apitypes.ProcessInfo{
		tell(int64(m.HeapAlloc)), tell(int64(runtime.NumGoroutine())), tell(debug.SetMemoryLimit(-1) >> 20),
	}}, nil
}

// measure asks the shim how large it is.
func (r *running) measure() (heap, goroutines, limit, rss int) {
	r.t.Helper()
	var p task.PidsResponse
	if err := r.Call(r.t.Context(), taskapi.V2, "Pids", &task.PidsRequest{}, &p); err != nil {
		r.t.Fatal(err)
	}
	kib, err := strconv.Atoi(strings.TrimSuffix(procField(r.t, r.pid, "status", "VmRSS:"), " kB"))
	if err != nil {
		r.t.Fatal(err)
	}
	return int(p.Processes[0].Pid), int(p.Processes[1].Pid), int(p.Processes[2].Pid), kib << 10
}

// W14: calls leave nothing behind in a shim's memory, however many there were on one
// connection. The process is a real one, behind its own socket and its own server.
func TestW14StatesLeaveMemoryFlat(t *testing.T) {
	total := soakCalls / underRace
	if os.Getenv("LARK_SOAK") != "" {
		total = longSoak
	}
	shim := newDaemon(t).container("c1").serving()
	part := total / soakParts
	var firstHeap, firstRSS, firstGo, heap, rss, goroutines int
	begun := time.Now()
	for i := range soakParts {
		callStates(t, shim, part)
		heap, goroutines, _, rss = shim.measure()
		t.Logf("%8d calls: heap %7d bytes, RSS %8d bytes, %d goroutines", (i+1)*part, heap, rss, goroutines)
		if i == 0 { // buffers and goroutines have been made by then
			firstHeap, firstRSS, firstGo = heap, rss, goroutines
		}
	}
	n := float64((soakParts - 1) * part)
	slope := float64(heap-firstHeap) / n
	t.Logf("%d calls of State in %v: heap %+.3f bytes per call, RSS %+.3f bytes per call, goroutines %+d",
		total, time.Since(begun).Round(time.Millisecond), slope, float64(rss-firstRSS)/n, goroutines-firstGo)
	if slope > maxSlope {
		t.Errorf("the heap grows by %.2f bytes per call, more than %.1f", slope, maxSlope)
	}
	if goroutines > firstGo+2 {
		t.Errorf("%d goroutines, %d at first", goroutines, firstGo)
	}
	shim.shutdown()
}

// callStates makes n calls of State, many at once.
func callStates(t *testing.T, shim *running, n int) {
	t.Helper()
	errs := make(chan error, soakCallers)
	var wg sync.WaitGroup
	for range soakCallers {
		wg.Go(func() {
			for range n / soakCallers {
				if err := shim.Call(t.Context(), taskapi.V3, "State", &task.StateRequest{ID: "c1"}, &task.StateResponse{}); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	var all error
	for err := range errs {
		all = errors.Join(all, err)
	}
	if all != nil {
		t.Fatal(all)
	}
}
