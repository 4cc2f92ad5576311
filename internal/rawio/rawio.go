// Package rawio reads and writes a unix socket by system calls that the Go scheduler is not told of.
//
// An ordinary system call tells the scheduler that it may block (entersyscall in runtime/proc.go). When the program was
// idle before, that wakes the runtime's monitor thread, which then looks every 20 us whether the call does block, until
// the program is idle again. A shim is idle between any two messages, so that this was 15 % of the CPU of an exec that
// is alone, and 40 % of the voluntary context switches with 32 at once. On a non-blocking socket read(2) and write(2)
// never block, and need no watch.
//
// The monitor thread also keeps one goroutine from holding the only P for longer than 10 ms, and looks at the poller
// when nobody else does. So that a connection on which there is always something to read cannot have it all for itself,
// every 64th transfer in a row that did not have to wait is an ordinary call.
package rawio

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a net.Conn over a non-blocking stream socket. Like those of package net it may be read by one goroutine and
// written by another, and closed by a third; unlike those it may not be read, or written, by two at once.
type Conn struct {
	net.Conn
	raw     syscall.RawConn
	in, out transfer
}

// transfer is one direction. What is asked and answered lies here and not in a closure of each call, which would be
// garbage.
type transfer struct {
	trap  uintptr // the number of the system call
	p     []byte
	n     int
	errno unix.Errno
	once  func(fd uintptr) (done bool)
	row   int // transfers since the last that had to wait, or was an ordinary call
}

// watchedEvery is how many transfers in a row may be unknown to the scheduler.
const watchedEvery = 64

// New makes a Conn of a connection of package net. It fails if that has no descriptor.
func New(c net.Conn) (*Conn, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, os.ErrInvalid
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &Conn{Conn: c, raw: raw}
	r.in.trap, r.in.once = unix.SYS_READ, r.in.try
	r.out.trap, r.out.once = unix.SYS_WRITE, r.out.try
	return r, nil
}

// try makes the call once; not done means that it is to be tried when the socket is ready.
func (t *transfer) try(fd uintptr) bool {
	for {
		var n uintptr
		if t.row++; t.row < watchedEvery {
			n, _, t.errno = unix.RawSyscall(t.trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.p))), uintptr(len(t.p)))
		} else {
			n, _, t.errno = unix.Syscall(t.trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.p))), uintptr(len(t.p)))
			t.row = 0
		}
		t.n = int(n)
		switch t.errno {
		case unix.EINTR:
		case unix.EAGAIN:
			t.row = 0
			return false
		default:
			return true
		}
	}
}

// run moves what it can of p, once.
func (t *transfer) run(do func(func(uintptr) bool) error, p []byte) (int, error) {
	t.p = p
	err := do(t.once)
	t.p = nil
	if err != nil {
		return 0, err // closed, or the deadline is over
	}
	if t.errno != 0 {
		return 0, t.errno
	}
	return t.n, nil
}

// Read is that of net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.in.run(c.raw.Read, p)
	switch {
	case err != nil:
		return 0, c.failed("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write is that of net.Conn: all of p, or an error.
func (c *Conn) Write(p []byte) (int, error) {
	for done := 0; ; {
		n, err := c.out.run(c.raw.Write, p[done:])
		if err != nil {
			return done, c.failed("write", err)
		}
		if done += n; done == len(p) {
			return done, nil
		}
	}
}

// failed gives an error the form of those of package net.
func (c *Conn) failed(op string, err error) error {
	if errno, ok := err.(unix.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	if _, ok := err.(*net.OpError); ok {
		return err
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
