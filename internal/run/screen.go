package run

// The screen: the container's output and the events share a terminal without
// disturbing each other. Events go to standard error, a line at a time; where output
// has left the cursor in the middle of a line of the same terminal, that line is ended
// first. While the container has a terminal of its own, events wait.

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// screen may be used from any goroutine.
type screen struct {
	out, err *os.File
	quiet    bool
	json     bool
	colour   bool

	mu      sync.Mutex
	midline bool // output ended without a newline, on the terminal that events go to
	held    bool
	waiting []string
	begun   bool // the table's head was written

	failed error         // of the first write that failed
	lost   chan struct{} // closed with it
}

func newScreen(o Options) *screen {
	return &screen{
		out: o.Stdout, err: o.Stderr, quiet: o.Quiet, json: o.JSON,
		colour: isTerminal(o.Stderr) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		lost:   make(chan struct{}),
	}
}

// isTerminal asks for the terminal's settings, which nothing else has.
func isTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// stream is the writer of one of the container's outputs.
type stream struct {
	s      *screen
	to     *os.File
	shared bool // with the events' terminal
}

func (s *screen) stdout() io.Writer {
	return &stream{s: s, to: s.out, shared: isTerminal(s.out) && isTerminal(s.err)}
}

func (s *screen) stderr() io.Writer {
	return &stream{s: s, to: s.err, shared: isTerminal(s.err)}
}

// Write never fails: the container's output is read on when it cannot be written,
// so that the container can be ended in order (see outputLost).
func (w *stream) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.shared && len(p) > 0 {
		w.s.midline = p[len(p)-1] != '\n'
	}
	_, err := w.to.Write(p)
	w.s.check(err)
	return len(p), nil
}

// check notes the first error of a write; mu is held.
func (s *screen) check(err error) {
	if err != nil && s.failed == nil {
		s.failed = err
		close(s.lost)
	}
}

// outputLost returns the error of the first write that failed, unless it says only
// that the reader wants no more, as head(1) does when it has its lines.
func (s *screen) outputLost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.failed, unix.EPIPE) {
		return nil
	}
	return s.failed
}

// event writes one line of the table, or keeps it for later.
func (s *screen) event(line string) {
	if s.quiet {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun && !s.json {
		s.begun = true
		s.put(s.dim(tableHead))
	}
	s.put(line)
}

// note writes a message of ours, quiet or not.
func (s *screen) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put("lark: " + text)
}

// put is called with mu held.
func (s *screen) put(line string) {
	if s.held {
		s.waiting = append(s.waiting, line)
		return
	}
	if s.midline {
		line, s.midline = "\n"+line, false
	}
	_, err := io.WriteString(s.err, line+"\n")
	s.check(err)
}

// hold keeps lines back until release, for as long as the terminal is the container's.
func (s *screen) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = isTerminal(s.err)
}

// release writes what was held back. It may be called more than once.
func (s *screen) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = false
	for _, line := range s.waiting {
		s.put(line)
	}
	s.waiting = nil
}

// The colours of the table.
func (s *screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) dim(text string) string   { return s.paint("2", text) }
func (s *screen) red(text string) string   { return s.paint("31", text) }
func (s *screen) green(text string) string { return s.paint("32", text) }
