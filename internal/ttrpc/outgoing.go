package ttrpc

import (
	"errors"
	"net"
	"runtime"
	"sync"
)

// errClosed says that this side has closed the connection.
var errClosed = errors.New("ttrpc: the connection was closed")

// outgoing collects messages for a connection and writes them, several with one
// call where several are there.
type outgoing struct {
	conn net.Conn
	done chan struct{} // closed with the first call of end

	mu      sync.Mutex
	buf     []byte // messages that wait
	count   uint64 // how many
	spare   []byte // the buffer that was written last
	writing bool   // a goroutine is in flush
	sent    uint64 // messages that were written
	err     error  // why the connection has ended
	changed chan struct{}
}

func newOutgoing(conn net.Conn) outgoing {
	return outgoing{conn: conn, done: make(chan struct{})}
}

// wait returns when something has changed, or false when cancel was closed. It
// is called with mu held and returns with mu held.
func (o *outgoing) wait(cancel <-chan struct{}) bool {
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	changed := o.changed
	o.mu.Unlock()
	defer o.mu.Lock()
	select {
	case <-changed:
		return true
	case <-cancel:
		return false
	}
}

// signal ends every wait, with mu held.
func (o *outgoing) signal() {
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
}

// reserve returns with mu held when a message may be appended. Otherwise it
// returns an error and mu is not held.
func (o *outgoing) reserve(cancel <-chan struct{}) error {
	o.mu.Lock()
	for len(o.buf) >= maxPending && o.err == nil {
		if !o.wait(cancel) {
			o.mu.Unlock()
			return errClosed
		}
	}
	if err := o.err; err != nil {
		o.mu.Unlock()
		return err
	}
	return nil
}

// flush writes what is there, and what comes meanwhile, unless another
// goroutine is doing so. It is called with mu held and returns without.
func (o *outgoing) flush() {
	if o.writing {
		o.mu.Unlock()
		return
	}
	o.writing = true
	// In a burst of calls other goroutines are ready to append a message. Most
	// of the work of a call is its system calls, and one write serves them all.
	o.mu.Unlock()
	runtime.Gosched()
	o.mu.Lock()
	for len(o.buf) > 0 && o.err == nil {
		buf, count := o.buf, o.count
		o.buf, o.count, o.spare = o.spare, 0, nil
		o.signal()
		o.mu.Unlock()
		_, err := o.conn.Write(buf)
		if err != nil {
			o.end(err)
		}
		o.mu.Lock()
		if o.spare = kept(buf); err == nil {
			o.sent += count
		}
		o.signal()
	}
	o.writing = false
	o.mu.Unlock()
}

// end closes the connection. The first error is kept.
func (o *outgoing) end(err error) {
	o.mu.Lock()
	if o.err == nil {
		o.err = err
		close(o.done)
	}
	o.signal()
	o.mu.Unlock()
	o.conn.Close()
}
