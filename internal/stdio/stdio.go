package stdio

// stdio.go is the life of one IO, from New to Close. What New opens is in open.go.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/routine"
)

// Spec is what a client asks for one process.
type Spec struct {
	// Stdin is empty or a FIFO. Stdout and Stderr are empty (discarded), an
	// absolute path of a FIFO or of an existing regular file or character device,
	// or a URI: fifo, file, binary or binary-v2. A logger takes both outputs; it is named by
	// Stdout.
	Stdin, Stdout, Stderr string
	// Terminal: the process has a terminal; Stderr is ignored.
	Terminal bool
	// UID and GID are to own the pipes that the process gets.
	UID, GID int
	// ContainerID and Namespace are told to a logger.
	ContainerID, Namespace string
}

// IO is the stdio of one process. Its methods may be called from any goroutine;
// Set, CloseAfterStart and ConsolePath are for the runtime call.
type IO struct {
	k       kernel
	log     *slog.Logger
	buffers *buffers
	logger  *logger

	mu      sync.Mutex // guards all below
	closed  bool
	given   [3]*os.File // what the process gets as 0, 1 and 2; nil once closed
	socket  *consoleSocket
	console *os.File
	size    *unix.Winsize // what Resize was asked for before there was a console
	outputs []*pump       // not started before Attach
	input   *pump         // nil without stdin
	hold    *os.File      // keeps stdin's FIFO from ending
	held    []*os.File    // our ends, closed by Close whatever becomes of the pumps
	sinks   []*sink

	attached bool
	running  atomic.Int32  // outputs that have not ended
	drained  chan struct{} // closed when all outputs have ended; nil before Attach
	inputEnd chan struct{} // the same for the input
}

// New opens everything that spec names. Nothing is copied before Attach, but a
// logger runs and is ready. On an error nothing is left open. Errors are
// InvalidArgument (what the client named is not what may be named), NotFound or
// FailedPrecondition (a logger that cannot be run), DeadlineExceeded (a logger
// that does not get ready), PermissionDenied, ResourceExhausted or Internal.
func New(ctx context.Context, owner *children.Owner, log *slog.Logger, spec Spec) (*IO, error) {
	return open(ctx, restarting{host{}}, owner, log, spec)
}

func open(ctx context.Context, k kernel, owner *children.Owner, log *slog.Logger, spec Spec) (*IO, error) {
	p, err := spec.parse()
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &IO{k: k, log: log, buffers: &buffers{}}
	if err := s.openAll(ctx, owner, p); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Set gives the runtime what the process is to have. Streams that are none stay nil, for
// which children.Owner.Start gives /dev/null.
func (s *IO) Set(cmd *exec.Cmd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A nil *os.File in an interface is not nil.
	if f := s.given[0]; f != nil {
		cmd.Stdin = f
	}
	if f := s.given[1]; f != nil {
		cmd.Stdout = f
	}
	if f := s.given[2]; f != nil {
		cmd.Stderr = f
	}
}

// CloseAfterStart closes our copies of what the runtime now has.
func (s *IO) CloseAfterStart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeGiven()
}

func (s *IO) closeGiven() error {
	var errs []error
	for i, f := range s.given {
		if f != nil {
			errs = append(errs, f.Close())
			s.given[i] = nil
		}
	}
	return errors.Join(errs...)
}

// ConsolePath is the socket for the terminal's master; empty without a terminal.
func (s *IO) ConsolePath() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket == nil {
		return ""
	}
	return s.socket.path
}

// Attach is called once, after the runtime has started the process: it takes the
// terminal, if there is to be one, and begins to copy. It fails only over a
// terminal (DeadlineExceeded, Internal) or after Close (FailedPrecondition).
func (s *IO) Attach(ctx context.Context) error {
	s.mu.Lock()
	socket := s.socket
	s.mu.Unlock()
	var console *os.File
	if socket != nil {
		var err error
		if console, err = socket.receive(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.attached {
		closeFile(console)
		return fmt.Errorf("stdio: attached after Close, or twice: %w", errdefs.ErrFailedPrecondition)
	}
	s.attached = true
	if console != nil {
		if err := s.connect(console); err != nil {
			return err
		}
	}
	s.start()
	return nil
}

// connect puts the terminal where the pumps miss an end.
func (s *IO) connect(console *os.File) error {
	s.console = console
	s.socket.close()
	s.socket = nil
	s.outputs[0].src = console
	if s.size != nil {
		if err := s.resize(*s.size); err != nil {
			s.log.Warn("the terminal has not got its size", "error", err)
		}
	}
	if s.input != nil {
		raw, err := console.SyscallConn()
		if err != nil {
			return systemError("the console", err)
		}
		s.input.dst = &sink{k: s.k, log: s.log, name: "console", file: console, raw: raw, keep: -1}
	}
	return nil
}

// start begins to copy: one goroutine per stream, and no other.
func (s *IO) start() {
	drained := make(chan struct{})
	s.drained = drained
	if len(s.outputs) == 0 {
		close(drained)
	}
	s.running.Store(int32(len(s.outputs)))
	for _, p := range s.outputs {
		routine.Keep(s.log, "copying of output", p.run, routine.DebtFunc(func() {
			p.src.Close()
			p.dst.leave()
			if s.running.Add(-1) == 0 {
				close(drained)
			}
		}))
	}
	if s.input == nil {
		return
	}
	s.inputEnd = make(chan struct{})
	p, end := s.input, s.inputEnd
	routine.Keep(s.log, "copying of input", p.run, routine.DebtFunc(func() {
		defer close(end)
		p.src.Close()
		// The end of stdin is the end of the pipe; of a terminal it is a hang-up,
		// which is what clients that close the stdin of a shell count on.
		p.dst.close()
	}))
}

// CloseStdin lets the process's stdin end once what was written to it has been
// read and the client has closed its side too. Before Attach it is remembered;
// without stdin, or the second time, it does nothing.
func (s *IO) CloseStdin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	closeFile(s.hold)
	s.hold = nil
}

// Resize sets the size of the terminal, in characters. Before Attach it is
// remembered; without a terminal, or when it is gone, it does nothing.
func (s *IO) Resize(width, height uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := unix.Winsize{Col: width, Row: height}
	if s.console == nil {
		s.size = &size
		return nil
	}
	return s.resize(size)
}

func (s *IO) resize(size unix.Winsize) error {
	raw, err := s.console.SyscallConn()
	if err != nil {
		return systemError("the console", err)
	}
	var ierr error
	// Control fails only if the file is closed: the process has let go of it.
	_ = raw.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size)
	})
	if ierr != nil {
		return systemError("resizing the console", ierr)
	}
	return nil
}

// Exited says that the process has exited: now a hang-up of its terminal is the
// end of its output, and not before. Without a terminal it does nothing.
func (s *IO) Exited() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.outputs {
		if p.terminal && !p.exited.Swap(true) && s.console != nil {
			// Wakes the pump, which looks again.
			_ = s.console.SetReadDeadline(time.Unix(0, 1))
		}
	}
}

// Drain waits until everything that the process wrote has been delivered. The
// process must have exited. DeadlineExceeded after ten seconds (somebody else
// still holds its stdout, or nobody reads), or when ctx ends; what is left is
// then lost by Close.
func (s *IO) Drain(ctx context.Context) error {
	s.Exited()
	s.mu.Lock()
	drained := s.drained
	s.mu.Unlock()
	if drained == nil {
		return nil
	}
	select { // almost always so: save the timer
	case <-drained:
		return nil
	default:
	}
	limit := time.NewTimer(drainLimit)
	defer limit.Stop()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stdio: output not delivered: %w", context.Cause(ctx))
	case <-limit.C:
		return fmt.Errorf("stdio: output not delivered within %v: %w", drainLimit, context.DeadlineExceeded)
	}
}

// Lost is how many bytes of output could not be written, so far.
func (s *IO) Lost() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n uint64
	for _, dst := range s.sinks {
		n += dst.lost.Load()
	}
	return n
}

// Close frees everything, also after New alone, and also while others hold the
// process's end of its pipes. A logger gets 13 s to end. Idempotent.
func (s *IO) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	err := s.closeGiven()
	closeFile(s.hold)
	s.hold = nil
	closeFile(s.console)
	for _, f := range s.held {
		closeFile(f)
	}
	for _, dst := range s.sinks {
		dst.close()
	}
	if s.socket != nil {
		s.socket.close()
		s.socket = nil
	}
	drained, inputEnd := s.drained, s.inputEnd
	s.mu.Unlock()
	s.settle(drained, inputEnd)
	if s.logger != nil {
		err = errors.Join(err, s.logger.stop())
	}
	return err
}

// settle waits for the copiers, whose files have just been closed.
func (s *IO) settle(ends ...chan struct{}) {
	limit := time.NewTimer(closeGrace)
	defer limit.Stop()
	for _, end := range ends {
		if end == nil {
			continue
		}
		select {
		case <-end:
		case <-limit.C:
			s.log.Error("a copier does not end; its file system hangs")
			return
		}
	}
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close() // a second close does no harm: os.File knows
	}
}
