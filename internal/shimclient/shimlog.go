package shimclient

// The FIFO that a shim logs to. A daemon copies it into its own log; here its end is
// kept for error messages and the rest shown on demand.

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// shimLog reads one shim's log for as long as the bundle lives.
type shimLog struct {
	file *os.File
	done chan struct{}

	mu   sync.Mutex
	last []byte    // at most logTail bytes
	also io.Writer // where the log is shown, or nil
}

func newShimLog(path string) (*shimLog, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("make the shim's log: %w", err)
	}
	// Opened for both, so that neither side waits for the other and a shim that
	// closes its end does not end the reading.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open the shim's log: %w", err)
	}
	l := &shimLog{file: f, done: make(chan struct{})}
	go l.copy()
	return l, nil
}

// copy ends when close closes the file.
func (l *shimLog) copy() {
	defer close(l.done)
	buf := make([]byte, logTail)
	for {
		n, err := l.file.Read(buf)
		if err != nil {
			return
		}
		l.mu.Lock()
		l.last = append(l.last, buf[:n]...)
		l.last = l.last[max(0, len(l.last)-logTail):]
		if l.also != nil {
			l.also.Write(buf[:n]) //nolint:errcheck // a log that cannot be shown is no failure of the shim
		}
		l.mu.Unlock()
	}
}

func (l *shimLog) show(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.also = w
}

func (l *shimLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.last)
}

// close may be called more than once.
func (l *shimLog) close() {
	l.file.Close()
	<-l.done
}
