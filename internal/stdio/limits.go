package stdio

// limits.go holds every bound of this package.

import "time"

const (
	// drainLimit is how long the output of a process that has exited may take to
	// be delivered. Containerd waits as long as that in its own shim, found after
	// tails of logs were lost with 2 s (#12364).
	drainLimit = 10 * time.Second
	// closeGrace is how long Close waits for copiers to notice. They do at once,
	// unless a file system hangs.
	closeGrace = 2 * time.Second
	// consoleWait bounds the arrival of a terminal. The runtime sends it before
	// its call returns, so that it is there when we look.
	consoleWait = 10 * time.Second
	// readyWait bounds how long a logger may take to say that it is ready: it
	// may have to reach a log service first.
	readyWait = 30 * time.Second
	// loggerEnd is how long a logger may take to end by itself after the end of the
	// output, before it is asked to by SIGTERM: one that does not catch that would
	// lose what it has not read yet. One that stays costs a Delete this much.
	loggerEnd = time.Second
	// loggerTerm is how long a logger may take to flush after SIGTERM, before
	// SIGKILL. Clients count on ten seconds and a little.
	loggerTerm = 12 * time.Second

	// linksMax is how many links to a log file that is to be made are followed: as
	// many as the kernel follows (path_resolution(7)).
	linksMax = 40

	// bufferSize is what is read at once where bytes go through our memory. Half
	// a pipe: the writer can fill one half while we write the other.
	bufferSize = 32 << 10
	// hangupReads is how often in a row a terminal has to say that it was hung up.
	// Each question waits for one more run of the kernel's worker; two would do.
	hangupReads = 4
	// spliceSize is how much is asked of one splice(2): all that a pipe of the
	// default size holds, or one that a client has enlarged.
	spliceSize = 1 << 20
	// spliceWorth is the least that a splice should move for the next to be one.
	// Pages that are moved keep a slot of the FIFO each (it has 16 by default), so
	// that a few bytes per page would fill it; those are better copied.
	spliceWorth = 16 << 10
	// wideSize is what the pipes of a stream hold, in bytes, while it moves much: twice
	// the default. It brings most of what there is to be had (PERFORMANCE.md).
	wideSize = 128 << 10
	// wideWorth is how much has to be moved, by splices that were each worth it, before
	// the pipes are enlarged.
	wideWorth = 1 << 20
	// wideRest is how long after the last such splice they stay so.
	wideRest = time.Second
	// wideStreamsMax is how many streams of a shim may have enlarged pipes at a time. They
	// hold 32 pages more each, of the 16,384 that the users of a host are given by default.
	wideStreamsMax = 16

	// socketPathMax is the longest path of a unix socket (unix(7): sun_path has
	// 108 bytes, one of them NUL).
	socketPathMax = 107
	// maxID is the highest uid or gid: -1 means "leave as it is" to chown(2).
	maxID = 1<<32 - 2
	// maxFdsReceived is more than SCM_MAX_FD (253): all descriptors that come with
	// a message are taken, so that those we do not want can be closed.
	maxFdsReceived = 256
)
