package bench

import "time"

// How much work each measure does, and how long it may take. Chosen so that a full run
// of five rounds with the stub, runc and crun and four shims, one of them with a lock over
// every start, ends within half an hour on two cores.
const (
	// quickDivisor is how much less work Config.Quick means.
	quickDivisor = 5
	// execsPerRound: five rounds make 2,000 execs, the least over which the shim's CPU
	// means anything, as the kernel counts it in ticks of 10 ms.
	execsPerRound = 400
	// warmExecs are run and not counted before a level.
	warmExecs = 8
	// burst is how many execs are begun at once, burstsPerRound how often.
	burst          = 100
	burstsPerRound = 3
	// tasksPerRound and wholesPerRound are containers, one by one and then at once.
	tasksPerRound  = 40
	wholesPerRound = 12
	// atOnce is how many containers are made at once.
	atOnce = 4
	// startsPerRound are starts of a shim.
	startsPerRound = 10

	// shimsUp is how many shims of each kind are up while memory is read: what they share
	// is only then worth what it is worth on a host.
	shimsUp = 10
	// workers of them do the execs before the later readings.
	workers = 3
	// stateCalls, memoryExecs, moreExecs and memoryFlight are the work before the later
	// readings of the memory.
	stateCalls   = 100
	memoryExecs  = 1000
	moreExecs    = 10000
	memoryFlight = 32
	// settle is the rest before a reading at rest, and after work: exits in flight end.
	settle = 2 * time.Second
	// addedContainers are made in one shim to see what each costs.
	addedContainers = 20

	// exitsPerLevel is how many exits are measured beside each number of processes.
	exitsPerLevel = 100
	// exitRounds and memoryRounds are fewer than others: these measures are long.
	exitRounds   = 2
	memoryRounds = 1
	// startersAtOnce bounds how many of the running processes are started at once.
	startersAtOnce = 16

	// heldFor is how long an execve is held, in each of heldRounds.
	heldFor    = 8 * time.Second
	heldRounds = 3
	// heldStates are the calls of State at least, with heldPause in between.
	heldStates = 50
	heldPause  = 10 * time.Millisecond
	// leastHeld is what a smaller difference counts as: it is noise, and ratios are
	// made of these figures.
	leastHeld = 100 * time.Microsecond

	// outputMB is what "lark-write" writes, in MiB.
	outputMB = 256
	// outputBuffer is the reader's.
	outputBuffer = 256 << 10

	// callTimeout bounds a batch: a shim that hangs must not hang the run. The slowest seen
	// is Debian's 1.6 with 128 execs at once, 220 s, and nobody wants a run to end there.
	callTimeout = 10 * time.Minute
	// batchBudget is how long new operations are begun at one level. Containerd's shims
	// before 1.6.22 take half a second per exec with 32 in flight.
	batchBudget = 15 * time.Second
	// helperTimeout bounds the end of the bare runtime's helper.
	helperTimeout = 20 * time.Second
)

// inFlight are the numbers of execs at once; running are the numbers of processes beside
// which an exit is measured.
func inFlight() []int { return []int{1, 8, 32, 128} }

func running(quick bool) []int {
	if quick {
		return []int{1, 64, 512}
	}
	return []int{1, 16, 256, 1024, 4096}
}

// tick is the unit of utime and stime in /proc/PID/stat: USER_HZ is 100 on every
// architecture that Go supports on Linux.
const tick = 10 * time.Millisecond
