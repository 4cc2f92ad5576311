//go:build failpoint

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// plan is what the environment says, read once; at is 0 for a process that is to live.
var plan = func() (p struct {
	at   int64
	file string
}) {
	role, rest, _ := strings.Cut(os.Getenv(Env), ":")
	number, file, _ := strings.Cut(rest, ":")
	mine := os.Args[len(os.Args)-1]
	if mine != "start" && mine != "delete" {
		mine = "serve"
	}
	if role == mine {
		p.at, _ = strconv.ParseInt(number, 10, 64)
		p.file = file
	}
	return p
}()

var passed atomic.Int64

// watch is what Watch was given.
var watch atomic.Pointer[func(string)]

// Watch calls fn with the name of every point and step that is come to, on the
// goroutine that comes to it: fn may panic there. A nil fn ends that.
func Watch(fn func(name string)) {
	if fn == nil {
		watch.Store(nil)
		return
	}
	watch.Store(&fn)
}

// Step calls what Watch was given.
func Step(name string) {
	if fn := watch.Load(); fn != nil {
		(*fn)(name)
	}
}

// Point ends the process if this is the point to do so.
func Point(name string) {
	Step(name)
	if plan.at == 0 || passed.Add(1) != plan.at {
		return
	}
	if err := os.WriteFile(plan.file, []byte(name), 0o600); err != nil {
		panic(err) // the test must not take this for the crash that it wants
	}
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {} // SIGKILL may take a moment to arrive at this thread
}
