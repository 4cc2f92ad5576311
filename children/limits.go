package children

import "time"

// Every interval and bound of this package, with its reason.
const (
	// sweepInterval is the least time between two looks at the children. Listing 4,096 living children costs about 1 ms,
	// so that even a storm of exits spends at most a twentieth of one core on orphans; and 20 ms is short for a zombie.
	sweepInterval = 20 * time.Millisecond

	// sweepIdle is how long the sweep rests while all it knows of are zombies that wait for a window. The close of a
	// window and every SIGCHLD wake it at once; this is only the net under both.
	sweepIdle = 500 * time.Millisecond

	// retryPause is the time before a wait is tried again that failed in a way the manual pages do not know (or that
	// could not use the poller, because epoll was out of memory). An exit must not be lost because the machine is full.
	retryPause = 20 * time.Millisecond

	// cloneWait is the time between two looks at a fork that is to be ended and has made no process yet.
	cloneWait = time.Millisecond

	// bareWait is what a fork usually takes at most; the next one then waits for it no longer. It is also the time between
	// two looks at a fork whose execve takes long: until the child has closed the descriptors that are not its own, readers
	// of ForkLock wait.
	bareWait = 5 * time.Millisecond

	// settlePause is how long KillTree lets a fork that was under way when SIGSTOP arrived come to its end before it
	// lists the tree again. A fork takes tens to hundreds of microseconds.
	settlePause = time.Millisecond

	// settleRounds bounds how often KillTree lists the tree again while new processes keep turning up in it.
	settleRounds = 16

	// killWait bounds how long KillTree waits for what it has killed. A killed process needs microseconds, one in
	// uninterruptible sleep may need for ever; it is then left to the sweep.
	killWait = 2 * time.Second

	// killAllPauseMin and killAllPauseMax bound the pause between two looks at a cgroup whose processes were killed.
	killAllPauseMin = time.Millisecond
	killAllPauseMax = 50 * time.Millisecond

	// killAllBatch is how many processes of a cgroup are held by pidfd at once: descriptors are few (RLIMIT_NOFILE may
	// be 1024), and the membership is read again once per batch.
	killAllBatch = 64

	// statSize holds a whole /proc/PID/stat: 52 numbers of at most 20 digits, and a comm of at most 64 bytes.
	statSize = 1200

	// linkSize holds "pid:[4294967295]".
	linkSize = 64

	// listSize is the first buffer for a children file; it doubles while it is too small.
	listSize = 4096
)
