package children

// The sweep: dead children that nobody has claimed, and the living that KillTree has sentenced. It runs beside the way of
// an exit, never on it.

import (
	"errors"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// zombie is an unknown dead child. It is kept in mind by number and start time: while it is one of ours and dead its pid
// cannot be given away, and if somebody in Guard reaps it and the pid comes back, the start time is another.
type zombie struct {
	start uint64
	ns    uint64 // 0 if it could not be read: then any window may own it
	seen  uint64 // Owner.order when it was seen dead
}

// condemned is an unknown living child that a killed call has left behind.
type condemned struct {
	fd    int // pidfd
	start uint64
	ns    uint64
	seen  uint64 // Owner.order when it was seen
}

// sweeper runs until Close. SIGCHLD and the close of a window only arm it.
func (o *Owner) sweeper() {
	var again <-chan time.Time // nil: rest until armed
	for {
		select {
		case <-o.stop:
			return
		case <-o.armed:
		case <-again:
		}
		// Waiting first lets the owners of this burst of exits take what is theirs, so that there is mostly nothing left
		// to look for; and it keeps the distance to the next sweep. Further signals would tell nothing new meanwhile.
		listen := hush()
		open := o.rest(sweepInterval)
		listen()
		if !open {
			return
		}
		select {
		case <-o.armed: // what came meanwhile is seen by this sweep
		default:
		}
		again = nil
		if after := o.sweep(); after > 0 {
			again = time.After(after)
		}
	}
}

// rest waits, and reports whether the Owner is still open.
func (o *Owner) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-o.stop:
		return false
	case <-timer.C:
		return true
	}
}

// sweep looks once. It returns after which time to look again even if nothing arms it, 0 for never.
func (o *Owner) sweep() time.Duration {
	o.execute()
	if !o.anyDead() {
		o.mu.Lock()
		defer o.mu.Unlock()
		clear(o.zombies)
		return o.again(false)
	}
	before := o.reapings()
	pids, err := childrenOf(o.sys, "self")
	if err != nil {
		o.log.Warn("looking for orphans: trying again", "error", err)
		return retryPause
	}
	failed := o.observe(o.unknown(pids))
	for pid, z := range o.ownerless() {
		failed = o.bury(pid, z) || failed
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	// The listing may have missed some while children were reaped (proc(5)), by us or by somebody in Guard.
	return o.again(failed || o.reaped != before)
}

// again says when to look again. The caller holds mu.
func (o *Owner) again(soon bool) time.Duration {
	switch {
	case soon:
		return sweepInterval
	case len(o.zombies)+len(o.doomed) > 0:
		return sweepIdle
	}
	return 0
}

// anyDead asks whether there is any dead child at all, known or not: mostly there is none, and then this answers a
// hundred times faster than a listing.
func (o *Owner) anyDead() bool {
	dead, err := o.peek(unix.P_ALL, 0)
	return dead || err != nil && !errors.Is(err, unix.ECHILD)
}

func (o *Owner) reapings() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reaped
}

// unknown takes away the pids that are known. It goes by number: a known process
// whose number another has was lost, which the wait for it finds at once.
func (o *Owner) unknown(pids []int) []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	rest := pids[:0]
	for _, pid := range pids {
		if o.known[pid] == nil {
			rest = append(rest, pid)
		}
	}
	return rest
}

// observe enters the dead among unknown children in the table of zombies. It reports whether something could not be
// seen and is to be looked at again.
func (o *Owner) observe(pids []int) (failed bool) {
	found := make(map[int]zombie)
	for _, pid := range pids {
		dead, err := o.peek(unix.P_PID, pid)
		if err != nil && !errors.Is(err, unix.ECHILD) {
			failed = true
		}
		if !dead {
			continue
		}
		st, err := statOf(o.sys, pid)
		if err != nil {
			failed = failed || !gone(err)
			continue
		}
		ns, err := namespaceOf(o.sys, pid, o.own.ino.Load())
		if gone(err) {
			continue
		}
		if err != nil { // any window may own it then; but try to know better
			ns, failed = 0, true
		}
		found[pid] = zombie{start: st.start, ns: ns}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	// Only now, after the look, is it certain that a window with this number or a later one began after their death.
	seen := o.order
	o.order++
	for pid, z := range found {
		z.seen = seen
		if old, ok := o.zombies[pid]; ok && old.start == z.start {
			z.seen = old.seen
		}
		if o.holder(pid, z.start) == nil {
			o.zombies[pid] = z
		}
	}
	return failed
}

// openWindows is which windows are open, as far as it matters to an orphan: the oldest by namespace.
type openWindows struct {
	any     uint64 // the oldest that may own a process of any namespace
	unknown uint64 // the oldest whose namespace is yet to be learnt
	byNS    map[uint64]uint64
}

// windowsOpen makes a summary, so that the cost of a sweep is windows plus orphans, not their product. The caller holds
// mu.
func (o *Owner) windowsOpen() openWindows {
	open := openWindows{any: math.MaxUint64, unknown: math.MaxUint64, byNS: make(map[uint64]uint64)}
	for w := range o.windows {
		ino := w.ns.ino.Load()
		switch old, ok := open.byNS[ino]; {
		case w.any:
			open.any = min(open.any, w.order)
		case ino == 0:
			open.unknown = min(open.unknown, w.order)
		case !ok || w.order < old:
			open.byNS[ino] = w.order
		}
	}
	return open
}

// owned says whether what was seen at order seen in the namespace ns may belong to a window that was open then and still
// is. The caller holds mu.
func (o *Owner) owned(open openWindows, ns, seen uint64) bool {
	oldest := open.any
	switch order, ok := open.byNS[ns]; {
	case ns == 0:
		oldest = min(oldest, open.unknown)
		for _, order := range open.byNS {
			oldest = min(oldest, order)
		}
	case ok:
		oldest = min(oldest, order)
	}
	// A window that does not know its namespace yet has no process in one where a claimed process lives: not that of
	// another container. In our own it may, if its runtime makes none.
	if ns == o.own.ino.Load() || o.inUse[ns] == 0 {
		oldest = min(oldest, open.unknown)
	}
	return oldest < seen
}

// ownerless gives the zombies that no window can own any more, by pid.
func (o *Owner) ownerless() map[int]zombie {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.zombies) == 0 {
		return nil
	}
	open := o.windowsOpen()
	ownerless := make(map[int]zombie)
	for pid, z := range o.zombies {
		switch {
		case o.holder(pid, z.start) != nil:
			delete(o.zombies, pid)
		case !o.owned(open, z.ns, z.seen):
			ownerless[pid] = z
		}
	}
	return ownerless
}

// bury reaps the unknown zombie z. It reports whether that has to be tried again.
//
// The entry may be stale: code in Guard may have reaped the process, and its
// number may be that of a new child, which died in a window of its own. So bury
// reaps the process behind a pidfd, if that began when the entry says.
func (o *Owner) bury(pid int, z zombie) (failed bool) {
	fd, err := o.openChild(pid)
	var st stat
	if err == nil {
		defer unix.Close(fd)
		st, err = statOf(o.sys, pid)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.zombies[pid] != z: // claimed or seen again since it was judged
		return false
	case err == nil && st.start != z.start:
		delete(o.zombies, pid)
		return true // the new process with that number may be dead as well
	case err == nil && o.holder(pid, z.start) != nil:
		return false // claimed by a window that was not open when it was seen: cannot be
	case err == nil:
		// What stat said is of the process behind fd, if that is not reaped.
		_, _, err = o.reapChild(fd)
	}
	if err != nil && !errors.Is(err, ErrNotChild) && !errors.Is(err, unix.ECHILD) && !gone(err) {
		o.log.Warn("reaping an orphan: trying again", "pid", pid, "error", err)
		return true
	}
	delete(o.zombies, pid)
	return false
}
