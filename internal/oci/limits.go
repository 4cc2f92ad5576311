package oci

// limits.go holds every bound of this package: how long a call may take and how
// much of its output is kept.

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// stderrTail is how much of a runtime's stderr is kept, from its end: the
	// last line is the one that says why. A runtime gone mad may write a
	// gigabyte (row 30).
	stderrTail = 64 << 10
	// stdoutMax bounds answers read from stdout (state, ps, features). A `ps`
	// of 4,194,304 pids, the kernel's limit, takes 33 MB; nobody runs that many
	// in one container, and 8 MiB is a million.
	stdoutMax = 8 << 20
	// logTail is how much of the end of the runtime's JSON log is searched for
	// its last error.
	logTail = 64 << 10
	// messageMax bounds the text of an error that goes out in an RPC's status.
	// Long enough for every message of runc's with a path in it.
	messageMax = 4 << 10
	// outputGrace is how long output is still awaited after the runtime has
	// exited: a grandchild that holds the pipe must not hold the answer (row 36).
	outputGrace = 500 * time.Millisecond
	// stateMax bounds what is read of a runtime's state. runc's holds the whole
	// spec, with its seccomp profile: some 50 KiB.
	stateMax = 16 << 20
	// pidFileMax is more than the longest pid file: pid_max is at most 4194304.
	pidFileMax = 32
	// maxPid is PID_MAX_LIMIT of 64-bit kernels (proc(5), kernel.pid_max).
	maxPid = 1 << 22
	// chunk is how much of a runtime's output is read at once, in bytes: a pipe's
	// PIPE_BUF, so that a line is rarely cut.
	chunk = 4096
)

// Deadlines bounds the calls, one duration for each. Zero means that only the
// caller's context bounds the call.
type Deadlines struct {
	Create, Start, Exec, Kill, Delete    time.Duration
	Pause, Resume, Update, Pids          time.Duration
	State, Features, Checkpoint, Restore time.Duration
	// KillLaunch bounds, for a SIGKILL, the time until the runtime runs.
	KillLaunch time.Duration
}

// deadlineRow is one line of the table: the call, the variable that overrides
// it, its default.
type deadlineRow struct {
	env      string
	fallback time.Duration
	field    func(*Deadlines) *time.Duration
}

// deadlineTable says how long each call may take, and why.
var deadlineTable = []deadlineRow{
	// Hooks run inside create, CNI or GPU set-up among them; kubelet gives up
	// on its own call after 4 minutes by default.
	{"LARK_TIMEOUT_CREATE", 4 * time.Minute, func(d *Deadlines) *time.Duration { return &d.Create }},
	// Start and exec do a few syscalls, but behind whatever the machine is
	// doing: two minutes is what kubelet allows a runtime request.
	{"LARK_TIMEOUT_START", 2 * time.Minute, func(d *Deadlines) *time.Duration { return &d.Start }},
	{"LARK_TIMEOUT_EXEC", 2 * time.Minute, func(d *Deadlines) *time.Duration { return &d.Exec }},
	// These touch a state file and a cgroup. delete waits for init's death and
	// removes cgroups with a back-off of its own, about 10 s at worst.
	{"LARK_TIMEOUT_KILL", 30 * time.Second, func(d *Deadlines) *time.Duration { return &d.Kill }},
	// The execve of a runtime may be held up (by an on-access scanner, by storage).
	// A SIGKILL of init need not wait for it: it has another way, the pidfd. A busy
	// machine executes a program within a second.
	{"LARK_TIMEOUT_KILL_LAUNCH", time.Second, func(d *Deadlines) *time.Duration { return &d.KillLaunch }},
	{"LARK_TIMEOUT_DELETE", 30 * time.Second, func(d *Deadlines) *time.Duration { return &d.Delete }},
	{"LARK_TIMEOUT_PAUSE", 30 * time.Second, func(d *Deadlines) *time.Duration { return &d.Pause }},
	{"LARK_TIMEOUT_RESUME", 30 * time.Second, func(d *Deadlines) *time.Duration { return &d.Resume }},
	{"LARK_TIMEOUT_UPDATE", 30 * time.Second, func(d *Deadlines) *time.Duration { return &d.Update }},
	{"LARK_TIMEOUT_PS", 30 * time.Second, func(d *Deadlines) *time.Duration { return &d.Pids }},
	{"LARK_TIMEOUT_STATE", 30 * time.Second, func(d *Deadlines) *time.Duration { return &d.State }},
	{"LARK_TIMEOUT_FEATURES", 30 * time.Second, func(d *Deadlines) *time.Duration { return &d.Features }},
	// How long a dump takes depends on the memory of the container: only the
	// client can know what is too long.
	{"LARK_TIMEOUT_CHECKPOINT", 0, func(d *Deadlines) *time.Duration { return &d.Checkpoint }},
	{"LARK_TIMEOUT_RESTORE", 0, func(d *Deadlines) *time.Duration { return &d.Restore }},
}

// DefaultDeadlines returns the table's defaults.
func DefaultDeadlines() Deadlines {
	var d Deadlines
	for _, row := range deadlineTable {
		*row.field(&d) = row.fallback
	}
	return d
}

// DeadlinesFromEnv returns the defaults, overridden by LARK_TIMEOUT_* variables
// (Go durations such as "90s"; "0" takes the bound away). getenv is os.Getenv
// outside tests. A variable that cannot be read is InvalidArgument: a bound that
// was asked for and silently not taken would be found out too late.
func DeadlinesFromEnv(getenv func(string) string) (Deadlines, error) {
	d := DefaultDeadlines()
	for _, row := range deadlineTable {
		text := getenv(row.env)
		if text == "" {
			continue
		}
		v, err := time.ParseDuration(text)
		if err != nil || v < 0 {
			return Deadlines{}, fmt.Errorf("%s=%q is not a duration: %w", row.env, text, errdefs.ErrInvalidArgument)
		}
		*row.field(&d) = v
	}
	return d, nil
}
