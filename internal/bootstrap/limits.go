package bootstrap

import "time"

// Every timeout, size and setting of this package, and why it is what it is.
const (
	// maxInput bounds what start and -info read, in bytes: containerd's own limit
	// for BootstrapParams.
	maxInput = 10 << 20
	// inputTimeout bounds the wait for the end of that input. A daemon has written it
	// before the process runs; one that holds the pipe open must not hold us.
	inputTimeout = 5 * time.Second

	// defaultSocketDir is where shims have their sockets unless BootstrapParams name
	// another place. containerd's tests compute it.
	defaultSocketDir = "/run/containerd/s"
	// maxSocketPath is sizeof(sun_path) without the final NUL, see unix(7).
	maxSocketPath = 107
	// lockFile is the file in the sockets' directory whose bytes are their locks.
	lockFile = ".lark.lock"
	// lockTimeout bounds the wait for other starts of the same socket, each of which
	// holds its lock for some 100 microseconds.
	lockTimeout = 5 * time.Second
	// lockPoll is the pause between two tries for the lock. fcntl(2) has no timeout,
	// and a thread that waits in it cannot be called back.
	lockPoll = time.Millisecond
	// backlog holds the connections made before the server accepts; one is usual.
	backlog = 128
	// joinAttempts is how often start looks again when a running shim goes away
	// while it is being joined.
	joinAttempts = 3
	// probeTimeout bounds the question what a running shim speaks. It has to be
	// answered while the shim is busy, and a stopped one must not hold a pod up.
	probeTimeout = time.Second

	// deleteTimeout bounds all that delete does; containerd gives it 5 seconds.
	deleteTimeout = 4500 * time.Millisecond
	// deleteRuntimeTimeout and stateRuntimeTimeout (how a failed delete finds out whether
	// the container is gone) leave some of that for the rest when the runtime hangs.
	deleteRuntimeTimeout = 2500 * time.Millisecond
	stateRuntimeTimeout  = 500 * time.Millisecond
	// dyingTimeout bounds the wait for runtime calls that die with their shim.
	dyingTimeout = 500 * time.Millisecond
	// removePause is the time between two tries to remove a cgroup whose processes were
	// killed a moment ago.
	removePause = 5 * time.Millisecond
	// infoTimeout bounds the runtime's features call.
	infoTimeout = 5 * time.Second

	// maxConcurrent is how many calls of the task API may run at once. Each Wait is
	// one, so this is above any number of processes that a pod has; a runaway client
	// is refused before its calls cost 100 MB.
	maxConcurrent = 16384
	// maxWork is how many of them may be of the kind that forks: Create, Start, Exec
	// and the like.
	maxWork = 2048

	// maxConns is how many connections may begin work. containerd has one, and its start
	// and delete commands add one each for a moment.
	maxConns = 256
	// maxExtra is how many more are accepted, whose calls are refused unless they end
	// something or only look. The rest wait in the kernel's backlog.
	maxExtra = 64
	// maxQuoted bounds what of a client's text is repeated in an error, in bytes.
	maxQuoted = 256
	// maxRecord bounds bootstrap.json and address, which containerd has written, in
	// bytes.
	maxRecord = 64 << 10

	// answerGrace is how long calls may go on when the shim ends. A Shutdown is
	// accepted only when nothing is left to do; on SIGTERM, containerd's Waits are.
	answerGrace = 500 * time.Millisecond
	// answerPoll is how often it is looked whether all are answered.
	answerPoll = time.Millisecond
	// linger is how long connections stay after the last answer, unless the clients go
	// before. A ttrpc client that finds both an answer and the end of the connection takes
	// either.
	linger = 5 * time.Millisecond
	// closeTimeout bounds the task service's own end.
	closeTimeout = 2 * time.Second
	// drainPatience is how long containerd may take none of the last events before they
	// are given up. With containerd alive milliseconds do; a slow one is waited for,
	// and without one nobody is there to miss the shim.
	drainPatience = 10 * time.Second

	// serverProcs is GOMAXPROCS of the serving process. Its calls wait for others nearly
	// all the time, so that a second one mostly looks for work in vain: with one an exec
	// takes a third less CPU, the process has 6 or 7 threads instead of 10 to 15, and
	// 1.2 MB less private memory (PERFORMANCE.md). A system call that takes long hands
	// the one on within 10 ms at worst. A fork does not, but would hold up the next
	// collection, and all with that, however many there were.
	serverProcs = "1"
	// threads are made when the server begins, for when there is no pid for another: one
	// runs Go code (serverProcs), the rest sit in system calls. With 64 clients at once
	// that read cgroups and try to fork, a shim with the six or seven threads that it
	// comes to have by itself died every other time, one with nine never. Each costs 18 kB
	// of memory. With main's and the runtime's own there are ten.
	threads = 7
	// gcPercent is Go's own: a collection per 4 MB of garbage. With 40 it was one per 1.6
	// MB, which cost 15 % of the CPU of an exec with 128 in flight and saved 0.3 MB after
	// 1,000 of them: at rest the heap is given back anyway.
	gcPercent = 100
	// memoryLimit makes the collector work harder before the process is that large, in
	// bytes: some thirty times what a shim with a busy pod has. It is a soft limit; what
	// bounds the memory is that every queue and buffer is bounded.
	memoryLimit = 256 << 20

	// restDelay is how long no call may have ended before memory is given back, which
	// takes about a millisecond of CPU, and as much of the next call. restLong is the
	// same after less work than restWorth calls: an exec every ten seconds, such as a
	// probe, is not to pay for that each time.
	restDelay = 250 * time.Millisecond
	restLong  = 30 * time.Second
	restWorth = 128

	// restHeap is how large a heap is collected at rest although it never was before, in
	// bytes. A shim with one container has 0.9 MB; twenty containers leave some 2 MB of
	// garbage behind, and the collector comes by itself only at 4.
	restHeap = 1600 << 10

	// pipeBuf is PIPE_BUF: a write of at most that goes into a FIFO as a whole.
	pipeBuf = 4096
	// maxStacks bounds a dump of all stacks, in bytes.
	maxStacks = 1 << 20
	// stacksPatience is how long one piece of that dump waits for a reader.
	stacksPatience = 100 * time.Millisecond

	// oomScoreMax is OOM_SCORE_ADJ_MAX, see proc_pid_oom_score_adj(5).
	oomScoreMax = 1000

	// runtimeUmask is that of the processes that call an OCI runtime, which hands it on
	// to execs. It is set because who started containerd may have left any (a umask of
	// 0 once made files of shims writable for all, containerd PR 9363). It cannot be
	// 0077 for that reason, and need not: whatever a shim creates has an explicit mode.
	runtimeUmask = 0o022

	// forsakenAfter is how long a shim without a connection waits before it looks whether
	// it is wanted. A daemon connects some milliseconds after start has
	// answered; one that needs minutes for that has other limits behind it by far.
	forsakenAfter = 10 * time.Minute

	// socketFD is where start hands the listening socket over.
	socketFD = 3
)
