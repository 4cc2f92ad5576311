package bootstrap

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// logFile is the FIFO in the bundle that containerd reads.
const logFile = "log"

// logPipe writes to containerd's FIFO. It never blocks and never fails: with no
// reader, or one that is slow, a record is lost and counted, and the next one that
// gets through is preceded by how many were.
//
// It is open for reading too, so that it survives a restart of containerd: with one
// reader left at all times no write is answered by EPIPE, up to 64 KiB wait for the
// next containerd, and that one finds the pipe as it left it.
type logPipe struct {
	fd int // -1: everything is discarded

	mu   sync.Mutex
	lost int
}

// openLog opens the FIFO of that path. Whatever else is there, or nothing, makes a
// pipe that discards: a shim without a log serves better than none.
func openLog(path string) *logPipe {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &logPipe{fd: -1}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(fd)
		return &logPipe{fd: -1}
	}
	return &logPipe{fd: fd}
}

// takeStderr makes the pipe this process's standard error, where the Go runtime
// writes why it dies.
func (l *logPipe) takeStderr() error {
	if l.fd < 0 {
		return nil
	}
	return os.NewSyscallError("dup3", errno.Retry(func() error { return unix.Dup3(l.fd, unix.Stderr, 0) }))
}

// Write takes one record. What is longer than PIPE_BUF goes out in pieces, of which
// the first that does not fit ends it.
func (l *logPipe) Write(p []byte) (int, error) {
	if l.fd < 0 {
		return len(p), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := p
	if l.lost > 0 { // told in one piece with the record, or not yet
		rest = append(fmt.Appendf(nil, "level=WARN msg=\"log records were lost\" count=%d\n", l.lost), p...)
	}
	for first := true; len(rest) > 0; first = false {
		piece := rest[:min(len(rest), pipeBuf)]
		if !l.put(piece) {
			l.lost++
			break
		}
		if first {
			l.lost = 0
		}
		rest = rest[len(piece):]
	}
	return len(p), nil
}

// put writes at most PIPE_BUF bytes, which go as a whole or, when the pipe is full,
// not at all.
func (l *logPipe) put(p []byte) bool {
	_, err := errno.RetryValue(func() (int, error) { return unix.Write(l.fd, p) })
	return err == nil
}

// patient writes a long text, giving a reader that is there time to take each piece.
func (l *logPipe) patient(p []byte) {
	if l.fd < 0 {
		return
	}
	for len(p) > 0 {
		piece := p[:min(len(p), pipeBuf)]
		l.mu.Lock()
		ok := l.put(piece)
		l.mu.Unlock()
		if !ok {
			fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLOUT}}
			if n, _ := unix.Poll(fds, int(stacksPatience.Milliseconds())); n == 0 {
				return
			}
			continue
		}
		p = p[len(piece):]
	}
}

// dumpStacks writes what every goroutine does.
func (l *logPipe) dumpStacks() {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) || len(buf) >= maxStacks {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	l.patient([]byte("=== BEGIN goroutine stacks ===\n"))
	l.patient(buf)
	l.patient([]byte("\n=== END goroutine stacks ===\n"))
}

// newLogger logs to w from the level on.
func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
