package soak

// What the shim of the pod holds, seen from outside at rest: the kernel's
// figures from /proc, and its goroutines from the dump of all stacks that it
// writes to its log on SIGUSR1.

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/e2e/daemon"
)

const (
	// defaultRest is how long the shim is left alone before a sample: it gives memory
	// back when no call has ended for a quarter of a second.
	defaultRest = 1500 * time.Millisecond
	// restCalls are made before that: after fewer the shim waits for half a minute
	// before it gives memory back, and pages of its own text would come and go in
	// the figures.
	restCalls = 160
	// dumpBound is how long the dump may take to be in the log.
	dumpBound = time.Minute
	// dumpEvery is how often the log is looked at.
	dumpEvery = 20 * time.Millisecond

	dumpBegin = "=== BEGIN goroutine stacks ===\n"
	dumpEnd   = "\n=== END goroutine stacks ===\n"
)

// Sample is what the shim of the pod held at one moment at rest.
type Sample struct {
	At         time.Duration `json:"at"`    // since the soak began
	Execs      int           `json:"execs"` // that had been started in it by then
	Goroutines int           `json:"goroutines"`
	Threads    int           `json:"threads"`
	FDs        int           `json:"fds"`
	Children   int           `json:"children"`
	RSS        int           `json:"rss"` // bytes, as the rest
	Private    int           `json:"private"`
	Anonymous  int           `json:"anonymous"`

	stacks map[string]int // goroutines by what created them
	fds    []string
}

// sample takes one. It is called when no call is under way.
func (s *soak) sample(ctx context.Context) (Sample, error) {
	for range restCalls {
		if _, err := s.c.Status(ctx, podID, ""); err != nil {
			return Sample{}, err
		}
	}
	select {
	case <-time.After(s.cfg.Rest):
	case <-ctx.Done():
		return Sample{}, ctx.Err()
	}
	pid := s.podShim.Pid
	sm := Sample{At: time.Since(s.began), Execs: int(s.podExecs.Load())}
	var err error
	if sm.fds, err = daemon.FDs(pid); err != nil {
		return sm, err
	}
	sm.FDs = len(sm.fds)
	if err := sm.memory(pid); err != nil {
		return sm, err
	}
	status, err := keyed(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return sm, err
	}
	sm.Threads = status["Threads"]
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		b, _ := os.ReadFile(file)
		sm.Children += len(strings.Fields(string(b)))
	}
	sm.stacks, err = s.stacks(ctx, pid)
	for _, n := range sm.stacks {
		sm.Goroutines += n
	}
	return sm, err
}

// memory reads /proc/PID/smaps_rollup, see proc(5).
func (sm *Sample) memory(pid int) error {
	const kib = 1 << 10
	m, err := keyed(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return err
	}
	sm.RSS, sm.Anonymous = m["Rss"]*kib, m["Anonymous"]*kib
	sm.Private = (m["Private_Clean"] + m["Private_Dirty"]) * kib
	return nil
}

// keyed reads the numbers of a file with lines as "Key:   12 kB".
func keyed(path string) (map[string]int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := map[string]int{}
	for l := range strings.Lines(string(b)) {
		key, rest, ok := strings.Cut(l, ":")
		f := strings.Fields(rest)
		if !ok || len(f) == 0 {
			continue
		}
		if n, err := strconv.Atoi(f[0]); err == nil {
			m[key] = n
		}
	}
	return m, nil
}

// stacks has the shim dump its stacks and counts them.
func (s *soak) stacks(ctx context.Context, pid int) (map[string]int, error) {
	info, err := os.Stat(s.d.LogPath())
	if err != nil {
		return nil, err
	}
	from := info.Size()
	if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
		return nil, os.NewSyscallError("kill", err)
	}
	ctx, cancel := context.WithTimeout(ctx, dumpBound)
	defer cancel()
	for {
		b, err := readFrom(s.d.LogPath(), from)
		if err != nil {
			return nil, err
		}
		if counts, ok := countStacks(b); ok {
			return counts, nil
		}
		select {
		case <-time.After(dumpEvery):
		case <-ctx.Done():
			return nil, fmt.Errorf("no dump of the stacks of pid %d in the log within %v", pid, dumpBound)
		}
	}
}

func readFrom(path string, offset int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() <= offset {
		return nil, err
	}
	b := make([]byte, info.Size()-offset)
	_, err = f.ReadAt(b, offset)
	return b, err
}

// countStacks counts the goroutines of a whole dump by what created them.
func countStacks(log []byte) (counts map[string]int, ok bool) {
	_, rest, began := bytes.Cut(log, []byte(dumpBegin))
	dump, _, ended := bytes.Cut(rest, []byte(dumpEnd))
	if !began || !ended {
		return nil, false
	}
	counts = map[string]int{}
	for one := range bytes.SplitSeq(dump, []byte("\n\n")) {
		if !bytes.HasPrefix(bytes.TrimSpace(one), []byte("goroutine ")) {
			continue
		}
		maker := "main"
		if _, after, made := bytes.Cut(one, []byte("\ncreated by ")); made {
			name, _, _ := bytes.Cut(after, []byte(" in goroutine "))
			name, _, _ = bytes.Cut(name, []byte("\n"))
			maker = string(name)
		}
		counts[maker]++
	}
	return counts, true
}

// more says of what there is more in the later sample, for the reader of a
// report of growth.
func more(first, last Sample) []string {
	var lines []string
	for maker, n := range last.stacks {
		if n > first.stacks[maker] {
			lines = append(lines, fmt.Sprintf("goroutines of %s: %d, at first %d", maker, n, first.stacks[maker]))
		}
	}
	before, after := kinds(first.fds), kinds(last.fds)
	for kind, n := range after {
		if n > before[kind] {
			lines = append(lines, fmt.Sprintf("descriptors of %s: %d, at first %d", kind, n, before[kind]))
		}
	}
	slices.Sort(lines)
	return lines
}

// kinds counts descriptors by what they are; sockets and pipes have numbers.
func kinds(fds []string) map[string]int {
	m := map[string]int{}
	for _, fd := range fds {
		if k, _, numbered := strings.Cut(fd, ":["); numbered && k != "anon_inode" {
			fd = k
		}
		m[fd]++
	}
	return m
}
