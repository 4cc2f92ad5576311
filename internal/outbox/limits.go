package outbox

import "time"

// Every limit of this package, and why it is what it is.
const (
	// MaxDroppable bounds the queued events that may be dropped. At about 300
	// bytes each this is 2.5 MB: more than any burst that a living containerd
	// lets pile up, and little enough for a shim with hours of outage.
	MaxDroppable = 8192

	// paceAt is how many queued events make Pace wait: with that many the goroutine
	// that sends them never runs dry, and the last is some 5 ms behind.
	paceAt = 64

	// paceTime is how long containerd must have taken nothing for Pace not to wait
	// for it. An event takes it 0.1 ms; one that needs a thousand times as long
	// does not live.
	paceTime = 100 * time.Millisecond

	// paceLongest is the longest that Pace waits. A machine on which a process waits
	// its turn for milliseconds takes as long for each event, and many clients that
	// add execs all the time outrun it without that: their events would be dropped
	// at MaxDroppable, with a containerd that takes each.
	paceLongest = 10 * time.Second

	// minBackoff is the pause after the second failure in a row. The first is
	// followed by a new attempt at once: most often it only says that the
	// connection went away with a containerd that has long been restarted.
	minBackoff = 10 * time.Millisecond

	// maxBackoff is short because a failed connect(2) to a unix socket costs
	// some ten microseconds, and because containerd's clients wait for the exit
	// events once it is back.
	maxBackoff = time.Second

	// firstAttempt is how long the first answer of a silent containerd is waited
	// for; each silence after it doubles that, up to longestAttempt. A broken
	// connection ends the wait at once, so that a restarted containerd never has
	// to be waited for; a long wait only avoids sending an event twice to one
	// that is stopped or swapping.
	firstAttempt   = 2 * time.Minute
	longestAttempt = 10 * time.Minute

	// dialTimeout bounds connect(2), which blocks while containerd's backlog is
	// full.
	dialTimeout = 2 * time.Second

	// maxRefusals is how often a droppable event may be called invalid.
	maxRefusals = 10
)
