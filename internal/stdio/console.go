package stdio

// console.go receives the master of a terminal from the runtime.
//
// The socket lies in a directory that only we may enter. What comes through it
// is not believed: exactly one descriptor, and a pseudo-terminal's master, is
// taken; everything else is closed.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/tempdir"
)

// consoleSocket waits for one terminal.
type consoleSocket struct {
	listener *net.UnixListener
	dir      string
	path     string
}

// newConsoleSocket listens in a new directory under $XDG_RUNTIME_DIR, or elsewhere
// where that is not there any more or its path is too long for a socket.
func newConsoleSocket(k kernel) (*consoleSocket, error) {
	parents := tempdir.Parents(os.Getenv("XDG_RUNTIME_DIR"))
	return tempdir.First(parents, func(parent string) (*consoleSocket, error) { return listenBelow(k, parent) })
}

// listenBelow listens in a new directory under parent.
func listenBelow(k kernel, parent string) (*consoleSocket, error) {
	const pattern, name = "lark-pty", "s"
	const random = len("4294967295") // what os.MkdirTemp adds at most
	if len(parent)+1+len(pattern)+random+1+len(name) > socketPathMax {
		return nil, systemError("the console socket", &os.PathError{Op: "bind", Path: parent, Err: unix.ENAMETOOLONG})
	}
	dir, err := k.mkdirTemp(parent, pattern) // 0700
	if err != nil {
		return nil, systemError("a directory for the console socket", err)
	}
	path := filepath.Join(dir, name)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		os.RemoveAll(dir)
		return nil, systemError("the console socket", err)
	}
	return &consoleSocket{listener: listener, dir: dir, path: path}, nil
}

// close removes the socket.
func (c *consoleSocket) close() {
	c.listener.Close()
	os.RemoveAll(c.dir)
}

// receive waits for the terminal. DeadlineExceeded if nobody brings one, Internal
// if it is not one.
func (c *consoleSocket) receive(ctx context.Context) (*os.File, error) {
	limit := time.Now().Add(consoleWait)
	if d, ok := ctx.Deadline(); ok && d.Before(limit) {
		limit = d
	}
	_ = c.listener.SetDeadline(limit)
	conn, err := c.listener.AcceptUnix()
	if err != nil {
		return nil, consoleError("nobody connected to the console socket", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(limit)
	fds, err := receiveFds(conn)
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		closeAll(fds)
		return nil, fmt.Errorf("stdio: the runtime sent %d descriptors for one console: %w", len(fds), errdefs.ErrInternal)
	}
	if err := checkMaster(fds[0]); err != nil {
		closeAll(fds)
		return nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		closeAll(fds)
		return nil, systemError("the console", err)
	}
	return os.NewFile(uintptr(fds[0]), "console"), nil
}

// receiveFds takes all descriptors of one message.
func receiveFds(conn *net.UnixConn) ([]int, error) {
	name := make([]byte, 4096) // the path that goes with the descriptor
	control := make([]byte, unix.CmsgSpace(4*maxFdsReceived))
	_, n, _, _, err := conn.ReadMsgUnix(name, control) // close-on-exec: net sees to it
	if err != nil {
		return nil, consoleError("no console came", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return nil, systemError("the console's message", err)
	}
	var fds []int
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds, nil
}

// checkMaster refuses what is not the master of a pseudo-terminal: a character
// device that knows the number of its slave. Only the driver of such masters
// answers TIOCGPTN.
func checkMaster(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return systemError("the console", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR {
		if _, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN); err == nil {
			return nil
		}
	}
	return fmt.Errorf("stdio: what the runtime sent is not a terminal's master: %w", errdefs.ErrInternal)
}

func consoleError(what string, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("stdio: %s: %w", what, context.DeadlineExceeded)
	}
	return systemError(what, err)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
