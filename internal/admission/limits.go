package admission

import (
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// perCPU is how many calls run at once for each processor, at most. A call
	// waits for the disk and for its own children much of the time: fewer leave
	// processors idle, and more make the first calls later and the last no earlier.
	perCPU = 4

	// narrow is how many calls run at once as long as it is not known that they are
	// quick. Four calls of a runtime that serialises them and takes two seconds for
	// each end within countsForOwn.
	narrow = 4

	// countsFor is how long a call counts for calls of other containers. Most end
	// within a tenth of it on a machine that is not starved.
	countsFor = time.Second

	// countsForOwn is how long a call counts for calls of its own container: long
	// enough for a runtime that serialises its calls and takes two seconds for
	// each, short beside every deadline of a call.
	countsForOwn = 10 * time.Second

	// maxWaiting bounds how many calls wait in each lane. The server of the task
	// API admits no more calls that fork.
	maxWaiting = 2048

	// maxAtOnce is the largest number that LARK_CALLS_AT_ONCE may set: no machine
	// runs more processes at once for one shim to any use.
	maxAtOnce = 4096
)

// atOnceVariable sets how many calls run at once.
const atOnceVariable = "LARK_CALLS_AT_ONCE"

// AtOnce returns how many calls may run at once: LARK_CALLS_AT_ONCE, or four
// for each processor that this process may use. getenv is os.Getenv outside
// tests. InvalidArgument if the variable is not a number from 1 to 4096.
func AtOnce(getenv func(string) string) (int, error) {
	text := getenv(atOnceVariable)
	if text == "" {
		return perCPU * runtime.NumCPU(), nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxAtOnce {
		return 0, fmt.Errorf("%s=%q is not a number from 1 to %d: %w", atOnceVariable, text, maxAtOnce, errdefs.ErrInvalidArgument)
	}
	return n, nil
}
