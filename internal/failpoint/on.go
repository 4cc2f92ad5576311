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

// Point ends the process if this is the point to do so.
func Point(name string) {
	if plan.at == 0 || passed.Add(1) != plan.at {
		return
	}
	if err := os.WriteFile(plan.file, []byte(name), 0o600); err != nil {
		panic(err) // the test must not take this for the crash that it wants
	}
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {} // SIGKILL may take a moment to arrive at this thread
}
