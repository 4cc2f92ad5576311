package bench

// A bar on a terminal, while the bench runs.

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows how far a run is. Without a terminal it shows nothing.
type progress struct {
	to    *os.File
	total int
	begin time.Time

	mu    sync.Mutex
	steps int
	what  string
}

func newProgress(to *os.File, total int) *progress {
	if to != nil {
		if _, err := unix.IoctlGetTermios(int(to.Fd()), unix.TCGETS); err != nil {
			to = nil
		}
	}
	return &progress{to: to, total: max(total, 1), begin: time.Now()}
}

// doing says what is being measured.
func (p *progress) doing(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what = what
	p.draw()
}

// step is called when one of the steps is done.
func (p *progress) step() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps++
	p.draw()
}

// end takes the bar away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to != nil {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}

func (p *progress) draw() {
	if p.to == nil {
		return
	}
	width := defaultWidth
	if size, err := unix.IoctlGetWinsize(int(p.to.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		width = int(size.Col)
	}
	fmt.Fprint(p.to, "\r\x1b[K"+p.line(time.Since(p.begin), width))
}

const (
	defaultWidth = 80
	barWidth     = 24
)

// line is the bar after a time, cut to a width.
func (p *progress) line(spent time.Duration, width int) string {
	done := min(p.steps, p.total)
	full := barWidth * done / p.total
	text := fmt.Sprintf("[%s%s] %3d%%", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), 100*done/p.total)
	if done > 0 && done < p.total {
		left := spent * time.Duration(p.total-done) / time.Duration(done)
		text += fmt.Sprintf("  %s left", left.Round(time.Second))
	}
	text += "  " + p.what
	if len(text) >= width {
		text = text[:max(0, width-1)]
	}
	return text
}
