package stdio

// pump.go moves the bytes of one stream, in one goroutine.
//
// Bytes go through a buffer of ours, or, where both ends are pipes and there is
// much to move, straight from pipe to pipe (splice(2)). Waiting is done in Go's
// poller: an idle stream costs a goroutine's stack and nothing else.

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// buffers are lent to streams while they have bytes in hand.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, bufferSize)
	return &p
}

func (b *buffers) put(p *[]byte) { b.pool.Put(p) }

// sink is where a stream ends. Two streams may share one; the last to leave
// closes it. A sink without a file takes everything and keeps nothing.
type sink struct {
	k    kernel
	log  *slog.Logger
	name string
	file *os.File
	raw  syscall.RawConn
	keep int  // see output; -1 for none
	pipe bool // a pipe or FIFO: splice works

	users  atomic.Int32
	lost   atomic.Uint64 // bytes that could not be written
	warned atomic.Bool
	once   sync.Once
}

// newSink wraps an open file; it has no users yet.
func newSink(k kernel, log *slog.Logger, o output, pipe bool) (*sink, error) {
	raw, err := o.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &sink{k: k, log: log, name: o.file.Name(), file: o.file, raw: raw, keep: o.keep, pipe: pipe}, nil
}

// leave is called once by each user when its stream has ended.
func (s *sink) leave() {
	if s.users.Add(-1) <= 0 {
		s.close()
	}
}

// close closes the sink under whoever still uses it.
func (s *sink) close() {
	s.once.Do(func() {
		if s.file != nil {
			s.file.Close()
		}
		if s.keep >= 0 {
			unix.Close(s.keep)
		}
		if n := s.lost.Load(); n > 0 {
			s.log.Warn("output was lost", "target", s.name, "bytes", n)
		}
	})
}

// write writes all of p, waiting as long as the sink is full. It returns
// os.ErrClosed if the sink was closed meanwhile, else what write(2) says, after
// counting what was not written.
func (s *sink) write(p []byte) error {
	if s.file == nil {
		return nil
	}
	var werr error
	err := s.raw.Write(func(fd uintptr) bool {
		for len(p) > 0 {
			var n int
			n, werr = s.k.write(int(fd), p)
			if werr != nil {
				return werr != unix.EAGAIN
			}
			p = p[n:]
		}
		return true
	})
	if err != nil { // a RawConn without deadlines fails for no other reason
		return os.ErrClosed
	}
	if werr != nil {
		s.lose(len(p), werr)
	}
	return werr
}

// lose counts bytes that are gone, and says so the first time.
func (s *sink) lose(n int, why error) {
	s.lost.Add(uint64(n))
	if !s.warned.Swap(true) {
		s.log.Warn("output cannot be written; it is read on and lost", "target", s.name, "error", why)
	}
}

// pump copies src to dst until src ends or either is closed.
type pump struct {
	k       kernel
	buffers *buffers
	src     *os.File
	dst     *sink
	// strict: an error of dst ends the pump. That is stdin's way: a process that
	// does not read any more gets nothing more. Output is read on.
	strict bool
	// splice: src and dst are pipes.
	splice bool
	// terminal: src is a terminal's master. Its hang-up ends the stream only if
	// exited is set: before the exit of its process, the process may close the
	// terminal and open it again, and our close of the master would send SIGHUP.
	terminal bool
	exited   atomic.Bool

	raw  syscall.RawConn
	wide wide
}

// run copies. It returns when there is nothing more to copy, and closes nothing.
func (p *pump) run() {
	raw, err := p.src.SyscallConn()
	if err != nil {
		return
	}
	p.raw = raw
	defer p.leaveWide()
	fast := false
	for {
		var n int
		if fast {
			n, err = p.move()
			if errors.Is(err, errNoSplice) {
				// Why it failed is for copy to find out and to count.
				p.splice, fast = false, false
				continue
			}
		} else {
			n, err = p.copy()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.rested()
			continue
		}
		if err != nil {
			p.ended(err)
			return
		}
		fast = p.splice && n >= spliceWorth
		if p.splice {
			p.flows(n)
		}
	}
}

// ended says so if the stream ended otherwise than by its end (io.EOF, or EIO from
// a terminal that was hung up) or by Close.
func (p *pump) ended(err error) {
	var errno unix.Errno
	if errors.As(err, &errno) && errno != unix.EIO && errno != unix.EPIPE {
		p.dst.log.Warn("a stream ended early", "stream", p.src.Name(), "error", err)
	}
}

// copy moves what one read gives. The buffer is taken when there is something to
// read, not while waiting for it. io.EOF, EIO (a terminal that was hung up) and
// os.ErrClosed all mean that the stream has ended.
//
// Before the exit of a terminal's process a hang-up is waited out like an empty
// buffer. This does not spin although poll(2) reports POLLHUP all the while: Go's
// poller is edge-triggered (epoll(7), EPOLLET), and an edge comes with a close of
// the last slave or with output, but not with the state.
func (p *pump) copy() (int, error) {
	var (
		buf  *[]byte
		n    int
		rerr error
	)
	err := p.raw.Read(func(fd uintptr) bool {
		buf = p.buffers.get()
		// Asked before the read: output may come between an EIO and the exit.
		wait := p.terminal && !p.exited.Load()
		n, rerr = p.read(int(fd), *buf, wait)
		if rerr == unix.EAGAIN || wait && (rerr == unix.EIO || rerr == nil && n == 0) {
			p.buffers.put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer p.buffers.put(buf)
	}
	switch {
	case err != nil:
		return 0, err
	case rerr != nil:
		return 0, rerr
	case n == 0:
		return 0, io.EOF
	}
	if err := p.dst.write((*buf)[:n]); err != nil && (p.strict || errors.Is(err, os.ErrClosed)) {
		return 0, err
	}
	return n, nil
}

// read reads once, and again after an EIO, unless the caller waits then. The
// master of a terminal whose last slave was closed says EIO as soon as its buffer
// is empty; but up to 8 KiB may still be on their way into it, if the kernel's
// worker found it full, marked it so just after we had emptied it, and had to
// queue itself anew: a read waits for the worker's run that it finds, not for the
// next (n_tty_read and flush_to_ldisc in drivers/tty).
func (p *pump) read(fd int, buf []byte, wait bool) (n int, err error) {
	for range hangupReads {
		if n, err = p.k.read(fd, buf); err != unix.EIO || wait {
			break
		}
	}
	return n, err
}

// errNoSplice: splice does not work here, or dst refuses.
var errNoSplice = errors.New("no splice")

// move moves what one splice(2) moves, waiting as long as need be.
func (p *pump) move() (int, error) {
	for {
		n, next, err := p.moveWhenReadable()
		if next == waitRoom {
			n, next, err = p.moveWhenRoom()
		}
		switch {
		case err != nil:
			return 0, err
		case next == ended:
			return 0, io.EOF
		case next == moved:
			return n, nil
		}
	}
}

// step is what one splice has come to.
type step int

const (
	moved    step = iota
	waitRead      // src is empty
	waitRoom      // dst is full
	ended         // src is empty and nobody will write to it
)

// moveWhenReadable splices once src has something to tell, or finds dst full.
func (p *pump) moveWhenReadable() (n int, next step, err error) {
	var cerr, serr error
	rerr := p.raw.Read(func(in uintptr) bool {
		cerr = p.dst.raw.Control(func(out uintptr) { n, next, serr = p.try(int(in), int(out)) })
		return cerr != nil || serr != nil || next != waitRead
	})
	return n, next, cmp.Or(rerr, cerr, serr)
}

// moveWhenRoom splices once dst has room, or finds src empty.
func (p *pump) moveWhenRoom() (n int, next step, err error) {
	var cerr, serr error
	werr := p.dst.raw.Write(func(out uintptr) bool {
		cerr = p.raw.Control(func(in uintptr) { n, next, serr = p.try(int(in), int(out)) })
		return cerr != nil || serr != nil || next != waitRoom
	})
	return n, next, cmp.Or(werr, cerr, serr)
}

// try splices without waiting. EAGAIN does not say which side is not ready, and
// comes for a full dst even where src has ended; so src is asked.
func (p *pump) try(in, out int) (int, step, error) {
	n, err := p.k.splice(in, out, spliceSize)
	switch {
	case err == nil && n == 0:
		return 0, ended, nil
	case err == nil:
		return n, moved, nil
	case err != unix.EAGAIN:
		return 0, moved, errNoSplice
	}
	bytes, hungUp, err := p.k.poll(in)
	switch {
	case err != nil:
		return 0, moved, errNoSplice
	case bytes:
		return 0, waitRoom, nil
	case hungUp:
		return 0, ended, nil
	}
	return 0, waitRead, nil
}
