// Package heldexec holds the execve of a program for as long as its caller
// likes, as an on-access scanner does. It is for tests and measurements.
//
// It is a fanotify listener (fanotify(7)) for one file: whoever executes the
// file sleeps in execve until the listener permits it. The kernel permits
// everything once the listener's descriptor is closed, so that nothing stays
// held when the process ends in whatever way. It needs CAP_SYS_ADMIN, Linux 5.0,
// and CONFIG_FANOTIFY_ACCESS_PERMISSIONS.
//
// A program that forks in a way that stops its own goroutines during an execve
// cannot release what it holds itself: [Watchdog] ends such a process.
package heldexec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Gate is a listener for one program.
type Gate struct {
	file *os.File
	held chan *Execution
	done chan struct{} // closed when the listener has ended
	err  error         // why it ended; read after done

	mu     sync.Mutex
	hold   int // how many executions are still to be held; -1 for all
	closed bool
	open   map[*Execution]struct{}
}

// Execution is one execve that is held.
type Execution struct {
	// Pid is the process that executes the program.
	Pid  int
	gate *Gate
	fd   int32
}

// queue is how many executions can be held at once.
const queue = 1 << 12

// Open makes a gate in front of the program at path. It lets everything through
// until Hold is called.
func Open(path string) (*Gate, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fanotify_init: %w", err)
	}
	g := &Gate{
		file: os.NewFile(uintptr(fd), "fanotify"), held: make(chan *Execution, queue),
		done: make(chan struct{}), open: map[*Execution]struct{}{},
	}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_EXEC_PERM, unix.AT_FDCWD, path); err != nil {
		g.file.Close()
		return nil, fmt.Errorf("fanotify_mark of %s: %w", path, err)
	}
	go g.listen()
	return g, nil
}

// Hold makes the gate hold the next n executions, or all if n is negative.
func (g *Gate) Hold(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold = n
}

// Held gives the executions that are held, in their order. It is closed when the
// gate is.
func (g *Gate) Held() <-chan *Execution { return g.held }

// Close releases everything and ends the gate.
func (g *Gate) Close() error {
	g.mu.Lock()
	for e := range g.open {
		g.permit(e)
	}
	g.closed, g.hold = true, 0
	g.mu.Unlock()
	err := g.file.Close()
	<-g.done
	return errors.Join(err, g.err)
}

// Release lets the program run. Idempotent.
func (e *Execution) Release() {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	if _, held := e.gate.open[e]; held {
		e.gate.permit(e)
	}
}

// permit answers the kernel. The caller holds mu, and the gate is open. An answer
// about a process that was killed meanwhile is refused, which does not matter.
func (g *Gate) permit(e *Execution) {
	delete(g.open, e)
	answer := unix.FanotifyResponse{Fd: e.fd, Response: unix.FAN_ALLOW}
	_, _ = g.file.Write(unsafe.Slice((*byte)(unsafe.Pointer(&answer)), unsafe.Sizeof(answer)))
	unix.Close(int(e.fd))
}

// listen takes the kernel's questions until the gate is closed.
func (g *Gate) listen() {
	defer close(g.done)
	defer close(g.held)
	buf := make([]byte, 4096)
	for {
		n, err := g.file.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			g.err = fmt.Errorf("reading of held executions: %w", err)
			return
		}
		const size = int(unsafe.Sizeof(unix.FanotifyEventMetadata{}))
		for p := buf[:n]; len(p) >= size; {
			// fanotify_event_metadata: length (4), version, reserved, metadata_len (4),
			// mask (8), fd (4), pid (4).
			length := binary.NativeEndian.Uint32(p)
			fd := int32(binary.NativeEndian.Uint32(p[16:]))
			pid := int(int32(binary.NativeEndian.Uint32(p[20:])))
			p = p[length:]
			if fd >= 0 {
				g.take(&Execution{Pid: pid, gate: g, fd: fd})
			}
		}
	}
}

// take holds an execution or lets it through.
func (g *Gate) take(e *Execution) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		unix.Close(int(e.fd)) // the end of the listener permits it
		return
	}
	g.open[e] = struct{}{}
	if g.hold == 0 || len(g.held) == queue {
		g.permit(e)
		return
	}
	if g.hold > 0 {
		g.hold--
	}
	g.held <- e
}

// Watchdog ends this process by SIGALRM after a time, also when its scheduler
// stands still, unless stop is called before.
func Watchdog(after time.Duration) (stop func(), err error) {
	// SIG_DFL by hand: the Go runtime's handler would ignore it.
	var action [4]uint64 // struct sigaction of 64-bit Linux, all zero
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGALRM), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno != 0 {
		return nil, errno
	}
	timer := unix.Itimerval{Value: unix.NsecToTimeval(int64(after))}
	if _, err := unix.Setitimer(unix.ITIMER_REAL, timer); err != nil {
		return nil, err
	}
	return func() { _, _ = unix.Setitimer(unix.ITIMER_REAL, unix.Itimerval{}) }, nil
}
