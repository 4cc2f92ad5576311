package bootstrap

import (
	"runtime"
	"sync"

	"github.com/larkshim/lark/internal/routine"
)

// makeThreads makes the process have n threads more than it runs on. The Go runtime
// keeps a thread that it has made, idle, until it needs one; but if it needs one and
// cannot make it, because the pids controller has none left, the process ends with a
// fatal error (row 48), and a pod with it. A goroutine that is locked to its thread and
// rests makes the runtime take another thread for the next one.
func makeThreads(n int) {
	var resting, left sync.WaitGroup
	enough := make(chan struct{})
	for range n {
		resting.Add(1)
		left.Add(1)
		routine.Go(nil, "thread", func() {
			defer left.Done()
			runtime.LockOSThread()
			// Unlocked before it ends: a goroutine that ends locked takes its thread along.
			defer runtime.UnlockOSThread()
			resting.Done()
			<-enough
		})
	}
	resting.Wait()
	close(enough)
	left.Wait()
}
