package oci

// output.go collects what a runtime writes: bounded, whatever it writes, and
// without waiting for ever on somebody else who holds the pipe.

import (
	"io"
	"os"
	"time"

	"github.com/larkshim/lark/internal/routine"
)

// collector reads one pipe into memory. It keeps the end of the stream if tail
// is set, else its beginning; never more than max bytes.
type collector struct {
	r, w *os.File // w is closed once the runtime has it
	max  int
	tail bool

	done chan struct{}
	// Below: written by the reader, read once done is closed.
	buf   []byte
	over  bool // something was left out
	ended bool // EOF was seen
}

func newCollector(f files, max int, tail bool) (*collector, error) {
	r, w, err := f.pipe()
	if err != nil {
		return nil, err
	}
	return &collector{r: r, w: w, max: max, tail: tail, done: make(chan struct{})}, nil
}

// started closes our copy of the write end and begins to read. It is called once,
// after the fork.
func (c *collector) started() {
	c.w.Close()
	routine.Go(nil, "reading of a runtime's output", c.read, routine.DebtFunc(func() { close(c.done) }))
}

func (c *collector) read() {
	var b [chunk]byte
	for {
		n, err := c.r.Read(b[:])
		c.add(b[:n])
		if err != nil { // EOF, or the deadline set by finish
			c.ended = err == io.EOF
			return
		}
	}
}

// add keeps p. A tail is cut back only when it has grown to twice its size, so
// that a flood costs one copy per byte and not one of the whole tail per chunk.
func (c *collector) add(p []byte) {
	limit := c.max
	if c.tail {
		limit *= 2
	}
	if len(c.buf)+len(p) <= limit {
		c.buf = append(c.buf, p...)
		return
	}
	c.over = true
	if c.tail { // else: read on and drop, or the runtime would block
		keep := c.max - len(p)
		c.buf = append(c.buf[:copy(c.buf, c.buf[len(c.buf)-keep:])], p...)
	}
}

// finish waits at most grace for the end of the stream and returns what came.
// whole is false if something is missing: it was longer than max, or somebody
// still holds the pipe.
func (c *collector) finish(grace time.Duration) (data []byte, whole bool) {
	_ = c.r.SetReadDeadline(deadlineIn(grace))
	<-c.done
	c.r.Close()
	if over := len(c.buf) - c.max; over > 0 { // a tail between one and two sizes
		c.buf, c.over = c.buf[over:], true
	}
	return c.buf, c.ended && !c.over
}

// abandon gives the pipe back when the call never started.
func (c *collector) abandon() {
	c.w.Close()
	c.r.Close()
}
