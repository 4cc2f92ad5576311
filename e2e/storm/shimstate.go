package storm

// What a living shim holds: descriptors and children. And what a container
// wrote.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/e2e/daemon"
)

const (
	// steadyBound is how long a shim may take to close and reap after the last
	// delete was answered.
	steadyBound = time.Minute
	steadyEvery = 20 * time.Millisecond
)

// held is what a shim holds. Sockets are counted, not named: each connection
// of the daemon has another number.
type held struct {
	pid      int
	fds      int
	list     []string
	children []string
}

// shimState looks at the job's shim; the zero value when it is not found.
func (j *job) shimState() held {
	p, ok := j.s.d.Shim(j.id)
	if !ok {
		return held{}
	}
	h := held{pid: p.Pid}
	h.list, _ = daemon.FDs(p.Pid)
	h.fds = len(h.list)
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.Pid))
	for _, file := range tasks {
		b, _ := os.ReadFile(file)
		h.children = append(h.children, strings.Fields(string(b))...)
	}
	slices.Sort(h.children)
	return h
}

// settled waits until the shim holds no more than it did before.
func (j *job) settled(ctx context.Context, before held) {
	if before.pid == 0 {
		j.s.problem("no shim was found for %s", j.id)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, steadyBound)
	defer cancel()
	for {
		now := j.shimState()
		if now.fds <= before.fds && len(now.children) <= len(before.children) {
			return
		}
		select {
		case <-time.After(steadyEvery):
		case <-ctx.Done():
			j.s.problem("the shim of %s holds %d descriptors and children %v; before %d execs it held %d and %v; new: %q",
				j.id, now.fds, now.children, 2*crowd, before.fds, before.children, added(before.list, now.list))
			return
		}
	}
}

// added lists what is in now beyond before. Sockets and pipes have numbers of
// their own and are compared without them.
func added(before, now []string) []string {
	kind := func(fd string) string {
		k, _, _ := strings.Cut(fd, ":[")
		if k == "anon_inode" {
			return fd
		}
		return k
	}
	count := map[string]int{}
	for _, fd := range before {
		count[kind(fd)]++
	}
	var more []string
	for _, fd := range now {
		if count[kind(fd)]--; count[kind(fd)] < 0 {
			more = append(more, fd)
		}
	}
	return more
}

// fifo is a named pipe of which we are the reader.
type fifo struct {
	path string
	fd   int
}

// openFIFO makes and opens a named pipe. Non-blocking: neither the open waits
// for a writer, nor the last read for more.
func openFIFO(path string) (*fifo, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	return &fifo{path: path, fd: fd}, err
}

func (f *fifo) Close() {
	unix.Close(f.fd)
	os.Remove(f.path)
}

// output: what a process wrote before it ended has arrived when its delete is
// answered (I14).
func output(ctx context.Context, j *job) {
	const text = "to be or not to be\n"
	out, err := openFIFO(filepath.Join(j.s.d.Dir(), j.id+".out"))
	if err != nil {
		j.s.problem("fifo of %s: %v", j.id, err)
		return
	}
	defer out.Close()
	errs, err := openFIFO(filepath.Join(j.s.d.Dir(), j.id+".err"))
	if err != nil {
		j.s.problem("fifo of %s: %v", j.id, err)
		return
	}
	defer errs.Close()
	script := "i=0; while [ $i -lt 100 ]; do echo " + strings.TrimSpace(text) + "; i=$((i+1)); done; exit 5"
	if !j.create(ctx, daemon.SpecOpts{Args: []string{"sh", "-c", script}}, daemon.Stdio{Stdout: out.path, Stderr: errs.path}) {
		return
	}
	j.start(ctx, "", false)
	if j.wait(ctx, "", 5) && j.delete(ctx, "", true) {
		buf := make([]byte, 64<<10) // all of it fits into the pipe
		n, err := unix.Read(out.fd, buf)
		if want := strings.Repeat(text, 100); n != len(want) || string(buf[:max(n, 0)]) != want {
			j.s.problem("output of %s: %d of %d bytes when delete was answered, %v", j.id, n, len(want), err)
		}
		j.forget(ctx)
		return
	}
	j.rescue(ctx)
	j.deleteAll(ctx)
}
