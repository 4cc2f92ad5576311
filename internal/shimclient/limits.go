package shimclient

import "time"

// Every wait and size of this package, in one place.
const (
	// startTimeout bounds the `start` helper. The slowest helper seen takes 60 ms; a
	// machine with hundreds of runtime calls in flight can stretch that to seconds.
	startTimeout = 30 * time.Second
	// dialTimeout bounds connecting: the socket is bound before the helper answers, so
	// the connection is accepted by the kernel at once.
	dialTimeout = 5 * time.Second
	// greetTimeout bounds the first call, which waits for the server's own start.
	greetTimeout = 15 * time.Second
	// shutdownTimeout is what the daemon allows the Shutdown call, too.
	shutdownTimeout = 3 * time.Second
	// exitTimeout is how long a shim may take to leave after Shutdown was answered,
	// before it is killed. Upstream's gives its own clean-up 5 s.
	exitTimeout = 8 * time.Second
	// deleteTimeout bounds the `delete` helper. The daemon allows 5 s; a loaded
	// machine may need longer and nobody else would clean up after us.
	deleteTimeout = 20 * time.Second
	// runtimeTimeout bounds the last-resort `runtime delete --force`.
	runtimeTimeout = 20 * time.Second
	// killTimeout is how long killed processes may take to vanish. On a machine with many
	// more runnable threads than processors that was seen to take more than 5 s.
	killTimeout = 15 * time.Second
	// removeRetry is the pause between two tries to remove a cgroup or to look for
	// processes that are still dying.
	removeRetry = 10 * time.Millisecond
	// pollSlice is how soon a wait for a process notices that its context ended.
	pollSlice = 50 * time.Millisecond

	// maxAnswer bounds what a `start` helper may print; the daemon's limit for the
	// parameters it sends is 10 MiB, an answer is under 1 KiB.
	maxAnswer = 64 << 10
	// maxSocketPath is sizeof(sun_path) less the closing zero: unix(7).
	maxSocketPath = 107
	// maxSocketDir is the longest socket directory that a shim accepts: it appends a
	// slash and 64 hex digits.
	maxSocketDir = 42
	// logTail is how many bytes of the shim's log are kept for an error message.
	logTail = 4 << 10
)
