package ttrpc

// Every size and bound of this package, and why it is what it is.
const (
	// MaxMessage bounds a request and an answer, in bytes. It is the bound of
	// the official library, 4 MiB, less room for an answer that repeats all of
	// its request, such as a service name that is not known.
	MaxMessage = 4<<20 - 64
	// maxReceived bounds an answer that a client takes: the official bound.
	maxReceived = 4 << 20
	// MaxText bounds the text of an error in an answer, in bytes, and the sum
	// of its details.
	MaxText = 64 << 10
	// MaxBacklog is how many requests of one connection may be there that were
	// neither answered nor let in to run (Call.LetIn), before the connection is
	// not read from. A daemon has far fewer under way.
	MaxBacklog = 4096
	// maxBacklogBytes bounds the same requests by their length. The one that
	// exceeds it is taken.
	maxBacklogBytes = 8 << 20
	// maxPending is how many bytes may wait to be written to a connection
	// before a goroutine that has more of them waits. The message that exceeds
	// it is taken.
	maxPending = 256 << 10
	// maxKept is the largest buffer that is used again, in bytes. Longer
	// messages are rare, and a call that waits for a process keeps its buffer.
	maxKept = 4 << 10
	// readStep bounds how much of a message's claimed length is allocated
	// before as much has arrived, in bytes.
	readStep = 64 << 10
	// maxIdle is how many goroutines of a server wait for the next call. They
	// go when the process comes to rest (Server.Rest). A client keeps as much
	// of calls that are over.
	maxIdle = 32
)
