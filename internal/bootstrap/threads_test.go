package bootstrap

import (
	"os"
	"strconv"
	"testing"
)

// Row 48: the threads are there, and stay.
func TestRow48ThreadsAreMadeBeforehand(t *testing.T) {
	const many = 40 // more than the other tests have made the runtime start
	makeThreads(many)
	for range 3 {
		makeThreads(many) // made once, used again
	}
	n, err := strconv.Atoi(procField(t, os.Getpid(), "status", "Threads:"))
	if err != nil || n < many || n > 3*many {
		t.Errorf("%d threads, %v", n, err)
	}
}
