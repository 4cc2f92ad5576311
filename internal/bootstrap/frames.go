package bootstrap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// The header of a ttrpc message: length and stream id, big endian, type and flags.
const (
	frameHeader    = 10
	frameStream    = 4
	frameTypeByte  = 8
	frameFlagsByte = 9

	typeRequest  = 1
	typeResponse = 2
	typeData     = 3

	// flagsStream are those of a request that opens a stream: the client has closed
	// its side, or leaves it open. A plain call has neither.
	flagsStream = 1 | 2
)

// policed is a connection whose ttrpc messages are looked at as they pass. That is
// for four things that the ttrpc library (1.2.10) does not do:
//
//   - What cannot be served is refused in-band, and the connection goes on: a
//     message that is too long, whose payload is skipped, and one of a stream. The
//     task API has no streams, and the library dereferences a nil pointer when a
//     message of one names a call. See refuse.
//   - An answer can be held back until the library has entered its call in the table
//     of streams. If the answer is first, the entry stays for the life of the
//     connection (W14; ttrpc issue 236).
//   - It is known whether every request that came in has been answered.
//   - Who sends requests faster than they are answered, or reads no answers, is not read
//     from any more after maxBacklog of them. The library makes a goroutine for each, and
//     what Go keeps of a goroutine is never given back.
type policed struct {
	net.Conn
	in *bufio.Reader

	// Only the library's reader uses these.
	header  [frameHeader]byte
	unread  []byte // of the header
	left    int    // of the payload
	refusal refusals

	taken    atomic.Uint64 // requests whose last byte the library has been given
	settled  atomic.Uint64 // of those, how many it has certainly entered in its table
	answered atomic.Uint64
	running  atomic.Int64 // requests that were let in, each within its own bound

	arrived turn // of who waits for settled
	room    turn // of the reader, when there is a backlog

	// writing is held during a write to the connection; out counts what was written.
	writing  sync.Mutex
	out      frameCounter
	boundary *sync.Cond // of writing: out is between two messages, or gone is closed

	// extra: the connection was accepted beyond maxConns, see server.place.
	extra atomic.Bool

	refused func(error) // told why a connection ends, other than by its client's leave
	once    sync.Once
	gone    chan struct{} // closed by Close
}

func newPoliced(conn net.Conn, refused func(error)) *policed {
	c := &policed{Conn: conn, in: bufio.NewReader(conn), refused: refused, gone: make(chan struct{})}
	c.boundary = sync.NewCond(&c.writing)
	return c
}

// Read gives out at most the rest of one message. That the library comes for the next
// shows that it is done with the one before.
func (c *policed) Read(p []byte) (int, error) {
	if len(c.unread) == 0 && c.left == 0 {
		c.settle()
		c.awaitRoom()
		if err := c.nextFrame(); err != nil {
			return 0, c.end(err)
		}
	}
	if len(c.unread) > 0 {
		n := copy(p, c.unread)
		c.unread = c.unread[n:]
		c.finished()
		return n, nil
	}
	n, err := c.in.Read(p[:min(len(p), c.left)])
	c.left -= n
	if n > 0 {
		c.finished()
	}
	if err != nil {
		err = c.end(err)
	}
	return n, err
}

// nextFrame reads the header of the next message that the library is to see, and
// refuses those before it.
func (c *policed) nextFrame() error {
	for {
		// An end within a header is an end: there is no stream to answer on.
		if _, err := io.ReadFull(c.in, c.header[:]); err != nil {
			return err
		}
		st := c.refusal.of(&c.header)
		if st == nil {
			c.unread, c.left = c.header[:], int(binary.BigEndian.Uint32(c.header[:]))
			return nil
		}
		if err := c.refuse(st); err != nil {
			return err
		}
	}
}

// end is what the library is told when reading fails: EOF makes it drop the
// connection and its calls, while after any other error it goes on waiting for them.
func (c *policed) end(err error) error {
	select {
	case <-c.gone:
	default:
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			c.refused(err)
		}
	}
	return io.EOF
}

func (c *policed) finished() {
	if len(c.unread) == 0 && c.left == 0 {
		c.taken.Add(1)
	}
}

// settle notes that the library has entered all it was given, and tells who waits.
func (c *policed) settle() {
	c.settled.Store(c.taken.Load())
	c.arrived.call()
}

// awaitSettled returns when the library has entered the first n requests. That takes
// it some hundred nanoseconds more than none, unless its thread has lost the CPU: to
// look again and again cost a fifth of the shim's CPU under load.
func (c *policed) awaitSettled(n uint64) {
	c.arrived.await(c.gone, func() bool { return c.settled.Load() >= n })
}

// begun counts a request that was let in, and end counts it out. A call from nowhere, as
// tests make, has no connection.
func (c *policed) begun() (end func()) {
	if c == nil {
		return func() {}
	}
	c.running.Add(1)
	c.room.call()
	return func() { c.running.Add(-1) }
}

// awaitRoom returns when there is no backlog: requests that were neither answered nor let
// in. Those end soon, whatever the ones do that were let in.
func (c *policed) awaitRoom() {
	c.room.await(c.gone, func() bool {
		return int64(c.taken.Load()-c.answered.Load())-c.running.Load() <= maxBacklog
	})
}

func (c *policed) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	n, err := c.Conn.Write(p)
	c.answered.Add(c.out.count(p[:n]))
	if c.out.between() {
		c.boundary.Signal()
	}
	c.room.call()
	return n, err
}

// idle reports whether all that was asked has been answered.
func (c *policed) idle() bool { return c.answered.Load() >= c.taken.Load() }

func (c *policed) Close() error {
	c.once.Do(func() { close(c.gone) })
	err := c.Conn.Close() // which ends a write, and with it the hold of the lock
	c.writing.Lock()
	defer c.writing.Unlock()
	c.boundary.Signal()
	return err
}

// frameCounter counts the responses that end in a stream of bytes.
type frameCounter struct {
	header [frameHeader]byte
	have   int // bytes of the header
	left   int // bytes of the payload
}

// between reports whether the bytes counted end with a message.
func (f *frameCounter) between() bool { return f.have == 0 }

func (f *frameCounter) count(p []byte) (responses uint64) {
	for len(p) > 0 {
		if f.have < frameHeader {
			n := copy(f.header[f.have:], p)
			f.have, p = f.have+n, p[n:]
			if f.have < frameHeader {
				return responses
			}
			f.left = int(binary.BigEndian.Uint32(f.header[:]))
		}
		n := min(f.left, len(p))
		f.left, p = f.left-n, p[n:]
		if f.left > 0 {
			return responses
		}
		f.have = 0
		if f.header[frameTypeByte] == typeResponse {
			responses++
		}
	}
	return responses
}
