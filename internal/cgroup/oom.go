package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"strconv"
	"sync"

	"github.com/larkshim/lark/internal/errno"
	"github.com/larkshim/lark/internal/routine"
)

// OOMWatch reports that the kernel has killed a process of a container for want of memory.
//
// The promise (invariant 17): a kill that made init die is known by the time Last returns, because the kernel counts it
// before it sends the signal; and onOOM is never called after Last has begun to return. So a caller who calls Last
// before announcing init's exit announces every OOM before the exit that it explains. systemd may remove the group of
// a dead init within milliseconds, so the caller also calls Died between init's death and its reaping.
//
// A watch needs a file descriptor, or on version 2 a share in the one of its Host, and one goroutine that sleeps in the
// Go runtime's poller (W15: it ends when the descriptor is closed, on any error, and cannot spin). Where those cannot
// be had the watch is degraded: onOOM is not called, Last still works (row 50).
type OOMWatch struct {
	host *Host
	// dir is the memory cgroup of the container, "" if the kernel has no memory controller for us.
	dir  string
	file string // the counter's file in dir
	hear func() // tells the caller

	mu   sync.Mutex // held while onOOM runs, so that Last waits for it
	seen uint64     // kills that the caller was told of, or that are older than the watch
	done bool
	// whole: Died has counted, and init was dead by then.
	whole bool
	// first is seen at the beginning, and beside what the rest of the group's parent
	// had counted then, for the case that the group is gone at the end.
	first  uint64
	beside beside
	stop   chan struct{} // closed by Last
	// unsubscribe ends what wakes the watch. Called once, by Last, outside of mu.
	unsubscribe func()
}

// WatchOOM begins to watch the group's memory. onOOM is called from a goroutine of the watch, once for each time that
// the count of kills has been seen to rise; kills from before the watch do not count. (On version 1 also where the
// container has the killing disabled and ran out of memory.)
//
// The watch is never nil and Last must be called on it, whatever the error: an error means that it is degraded, worth
// one warning and nothing else. errno.ErrMissing: no memory controller (Last will always answer false). ResourceExhausted: no
// descriptor or no inotify instance or watch left.
func (g Group) WatchOOM(onOOM func()) (*OOMWatch, error) {
	w := &OOMWatch{host: g.host, hear: onOOM, stop: make(chan struct{}), unsubscribe: func() {}}
	dir := g.memoryDir()
	if dir == "" {
		return w, errno.Missing("no memory cgroup to watch for OOM")
	}
	w.dir, w.file = dir, "memory.oom_control"
	if g.Unified() {
		w.file = "memory.events"
	}
	seen, err := w.count()
	if err != nil {
		w.dir = ""
		return w, fmt.Errorf("watching %s for OOM: %w", dir, classed(err))
	}
	w.seen, w.first = seen, seen
	if g.Unified() {
		w.beside = w.lookBeside(false)
	}
	if g.Unified() {
		err = w.host.oom.add(w.host.sys, w)
	} else {
		err = w.listenV1()
	}
	if err != nil {
		return w, fmt.Errorf("watching %s for OOM, which will be noticed at exit only: %w", dir, classed(err))
	}
	// It may have happened between the count and the beginning of the watch.
	routine.Go(nil, "look for OOM kills", func() { w.look() })
	return w, nil
}

// memoryDir is the group's own memory cgroup: an OOM in the shim's own or the root is not the container's.
func (g Group) memoryDir() string {
	if g.v2.private {
		return g.v2.dir
	}
	for _, p := range g.v1 {
		if p.controller == "memory" && p.private {
			return p.dir
		}
	}
	return ""
}

// Died counts once init is dead and before it is reaped, and tells the caller of
// kills as the watch does. A version 2 group with nothing but a zombie in it can be
// removed, so Died is to be called at once.
func (w *OOMWatch) Died() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return
	}
	now, err := w.count()
	if err != nil {
		return // Last says so
	}
	w.whole = true
	if now > w.seen {
		w.seen = now
		w.hear()
	}
}

// Last ends the watch and looks one last time. It answers true if there were kills that onOOM was not told of, and
// then the caller must announce them. onOOM is not running when Last returns and will not run any more; therefore
// Last must not be called under a lock that onOOM takes. Further calls answer false. Last on a nil watch is false.
//
// Call it when init is known to be dead and before its exit is announced. struck says that init died of a SIGKILL that
// the caller did not send: if the group is gone by then and Died did not see it either, such a death counts as an OOM
// kill if the parent's group has counted one that neither this group nor its siblings account for (version 2).
//
// Errors: errno.ErrMissing if the group was gone, the kernel's with its class if the count could not be read. The answer is
// then what could be inferred, and false may be wrong.
func (w *OOMWatch) Last(struck bool) (bool, error) {
	if w == nil {
		return false, nil
	}
	w.mu.Lock()
	if w.done {
		w.mu.Unlock()
		return false, nil
	}
	w.done = true
	close(w.stop)
	more, err := w.lastCount(struck)
	w.mu.Unlock()
	w.unsubscribe()
	return more, err
}

// lastCount is what Last answers.
func (w *OOMWatch) lastCount(struck bool) (bool, error) {
	now, err := w.count()
	switch {
	case err == nil:
		return now > w.seen, nil
	case w.whole && gone(err):
		return false, nil
	case struck && gone(err) && w.unaccounted():
		return true, nil
	}
	return false, fmt.Errorf("looking for OOM kills in %s: %w", w.dir, classed(err))
}

// look counts the kills and tells the caller if there are more than before. more is false when the watch has ended.
func (w *OOMWatch) look() (found, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return false, false
	}
	now, err := w.count()
	if err != nil || now <= w.seen {
		return false, true
	}
	w.seen = now
	w.hear()
	return true, true
}

// report tells the caller without a count. False if the watch has ended.
func (w *OOMWatch) report() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.done {
		w.hear()
	}
	return !w.done
}

// count is the number of processes that the kernel has killed for want of memory in the group and below it.
//
// Version 2 counts a kill in every group above the victim's as well. Version 1 counts it in the victim's only
// (memcg_memory_event stops at the first), though the limit that was hit may be the container's and the victim in a
// group that the container made: so the groups below are added up.
func (w *OOMWatch) count() (uint64, error) {
	if w.dir == "" {
		return 0, nil
	}
	n, err := w.killsIn(w.dir)
	if err != nil || w.file == "memory.events" {
		return n, err
	}
	below, err := w.host.groupsBelow(w.dir)
	if err != nil {
		return n, nil // the container's own count is what matters
	}
	for _, dir := range below {
		if m, err := w.killsIn(dir); err == nil {
			n += m
		}
	}
	return n, nil
}

func (w *OOMWatch) killsIn(dir string) (uint64, error) {
	b, err := w.host.sys.readFile(path.Join(dir, w.file))
	if err != nil {
		return 0, err
	}
	return field(b, "oom_kill"), nil
}

// field finds a number in a file of "key value" lines, 0 if it is not there.
func field(b []byte, key string) uint64 {
	for line := range bytes.Lines(b) {
		k, v, ok := bytes.Cut(line, []byte(" "))
		if ok && string(k) == key {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(v)), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// pollable gives a non-blocking descriptor to the Go runtime's poller: a Read of it sleeps without a thread.
func pollable(fd int, name string) *os.File { return os.NewFile(uintptr(fd), name) }
