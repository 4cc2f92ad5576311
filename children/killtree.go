package children

// How a call is ended together with all that it has begun.
//
// SIGKILL of the runtime alone is not enough: 2 of 75 `runc exec -d` killed at a random moment left a living process in
// the container and no pid file, and the process group does not have it either, since it had called setsid(2).

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// KillTree kills the process, its process group and all its descendants, and reaps those that become ours. It may be
// called for a call that has ended already.
//
// ns is the pid namespace of the container for which the call was made, nil if for none. If it is not shared, every
// living child of ours that began in it after the call, and that no window claims which is open now, is killed as well: at
// once, or when the last such window has closed. The call's own window is one of them, so close it, before or after.
// Where namespaces cannot be told apart (no CAP_SYS_PTRACE), what another ended call
// has left in another container's namespace is killed with it.
//
// It returns when they are dead, or DeadlineExceeded after two seconds: some process is in uninterruptible sleep then, and
// is reaped when it wakes.
func (p *Process) KillTree(ns *PIDNamespace) error {
	o := p.held.owner
	victims := o.capture(p.held)
	// The group has our pid for its number, which nobody else can have as long as the process was not reaped.
	o.killGroup(p.held)
	_ = p.held.signal(unix.SIGKILL)
	for _, v := range victims {
		_ = retry(func() error { return o.sys.pidfdSignal(v.fd, unix.SIGKILL) })
	}
	if ns != nil {
		o.condemn(ns, p.held.start)
		o.execute()
	}
	return o.await(append([]*held{p.held}, victims...), victims)
}

// capture stops the tree below root and holds every process of it by pidfd, parents first. A stopped parent neither forks
// nor reaps, so that what its children file says stays true.
//
// The victims are entered in the table, so that neither the sweep nor a Claim takes them.
func (o *Owner) capture(root *held) []*held {
	if root.signal(unix.SIGSTOP) != nil {
		return nil // dead: its children are ours or its namespace's already
	}
	seen := map[int]bool{root.pid: true}
	tree := []*held{root}
	for round, quiet := 0, 0; round < settleRounds && quiet < 2; round++ {
		before := len(tree)
		for i := 0; i < len(tree); i++ {
			tree = o.captureChildren(tree, tree[i], seen)
		}
		// A fork that was under way when its parent was stopped comes to its end: look until nothing is new twice.
		quiet++
		if len(tree) > before {
			quiet = 0
		}
		o.rest(settlePause)
	}
	return tree[1:]
}

// captureChildren appends the children of parent that were not seen yet.
func (o *Owner) captureChildren(tree []*held, parent *held, seen map[int]bool) []*held {
	pids, err := childrenOf(o.sys, strconv.Itoa(parent.pid))
	if err != nil && !gone(err) {
		o.log.Warn("listing the processes of a call that is to be killed", "pid", parent.pid, "error", err)
	}
	for _, pid := range pids {
		if seen[pid] || pid <= 1 || pid == o.self {
			continue
		}
		h, err := o.captureOne(pid, parent)
		if err != nil {
			if !errors.Is(err, ErrNotChild) {
				o.log.Warn("a process of a call that is to be killed cannot be held", "pid", pid, "error", err)
			}
			continue
		}
		seen[pid] = true
		tree = append(tree, h)
	}
	return tree
}

// captureOne stops and holds a child of parent.
func (o *Owner) captureOne(pid int, parent *held) (*held, error) {
	fd, err := o.openChild(pid)
	if err != nil {
		return nil, err
	}
	h := newHeld(o, pid, fd)
	// The pid was read before it was opened; it may have another owner by now. A process keeps its pid while it lives,
	// so that what stat says after the open, if the pidfd can still be signalled after that, is of this process.
	st, err := statOf(o.sys, pid)
	if err == nil && (st.parent != parent.pid || st.start < parent.start) {
		err = ErrNotChild
	}
	if err == nil && !st.dead() {
		err = retry(func() error { return o.sys.pidfdSignal(fd, unix.SIGSTOP) })
	}
	if err == nil {
		h.start, h.entry = st.start, st.start
		err = o.enter(h)
	}
	if err != nil {
		h.release()
		if gone(err) {
			err = ErrNotChild
		}
		return nil, err
	}
	return h, nil
}

// enter makes a process known that is about to become our child.
func (o *Owner) enter(h *held) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return ErrClosed
	}
	if o.holder(h.pid, h.start) != nil {
		return ErrNotChild
	}
	o.put(h)
	return nil
}

// killGroup kills the process group of a process that this program has forked.
func (o *Owner) killGroup(root *held) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known[root.pid] != root {
		return // reaped: the number may be another group's
	}
	_ = retry(func() error { return o.sys.killGroup(root.pid, unix.SIGKILL) })
}

// await waits for the dead. A parent comes before its children, so that these are ours when their turn comes: the kernel
// gives orphans away before it tells of their parent's exit. Those to abandon are
// left to the sweep where they are not dead in time.
func (o *Owner) await(tree, abandon []*held) error {
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	var alive []int
	for _, h := range tree {
		_, err := h.wait(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			alive = append(alive, h.pid)
		}
	}
	for _, h := range abandon {
		// One that is not ours (ErrLost) was given to the init of its own namespace, which has to reap it.
		o.mu.Lock()
		o.forget(h)
		o.mu.Unlock()
		h.release()
	}
	o.arm()
	if len(alive) > 0 {
		return fmt.Errorf("processes %v were killed and are not dead after %v: %w", alive, time.Duration(killWait),
			context.DeadlineExceeded)
	}
	return nil
}

// condemn sentences the living, unclaimed children of ours that began in a container's own pid namespace after a call did.
func (o *Owner) condemn(ns *PIDNamespace, since uint64) {
	if ns.Shared() {
		return // a daemon of another container might be among them
	}
	pids, err := childrenOf(o.sys, "self")
	if err != nil {
		o.log.Warn("looking for what a killed call has left behind", "error", err)
		return
	}
	for _, pid := range o.unknown(pids) {
		if err := o.condemnOne(ns, since, pid); err != nil {
			o.log.Warn("what a killed call has left behind cannot be held", "pid", pid, "error", err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.doomed) > 0 {
		o.arm()
	}
}

// condemnOne sentences one child, if it is to be.
func (o *Owner) condemnOne(ns *PIDNamespace, since uint64, pid int) error {
	fd, err := o.openChild(pid)
	if errors.Is(err, ErrNotChild) {
		return nil
	}
	if err != nil {
		return err
	}
	st, err := statOf(o.sys, pid)
	var ino uint64
	if err == nil {
		ino, err = namespaceOf(o.sys, pid, o.own.ino.Load())
	}
	if err != nil || st.dead() || st.start < since ||
		!o.sentence(ns, pid, &condemned{fd: fd, start: st.start, ns: ino}) {
		unix.Close(fd)
	}
	if gone(err) {
		return nil
	}
	return err
}

// sentence decides under the lock. What was read in /proc is of the process behind
// c.fd, if that is an unreaped child.
func (o *Owner) sentence(ns *PIDNamespace, pid int, c *condemned) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if dead, err := o.peek(unix.P_PIDFD, c.fd); dead || err != nil {
		return false
	}
	if o.closed || o.holder(pid, c.start) != nil || !o.callMade(ns, c.ns) {
		return false
	}
	if old := o.doomed[pid]; old != nil {
		if old.start == c.start {
			return false
		}
		unix.Close(old.fd) // of a process that had this pid before
	}
	c.seen = o.order
	o.doomed[pid] = c
	o.order++
	return true
}

// callMade says whether an unknown process of the namespace ino, which began after a call for a container with the
// namespace ns, can only be that call's. The caller holds mu.
func (o *Owner) callMade(ns *PIDNamespace, ino uint64) bool {
	if ino == otherNS {
		// Some call's, if not ns's: the windows of the others protect what they own.
		return !o.sharing
	}
	if known := ns.ino.Load(); known != 0 {
		return known == ino
	}
	// The call was to make the namespace and did not live to tell. Processes of a namespace that nobody knows come to us
	// from such calls only (orphans go to the init of their own), unless a container in our own namespace has made it.
	return ino != o.own.ino.Load() && o.inUse[ino] == 0 && !o.sharing
}

// execute kills the condemned that no window has claimed and none can claim any more.
func (o *Owner) execute() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.doomed) == 0 {
		return
	}
	open := o.windowsOpen()
	for pid, c := range o.doomed {
		claimed := o.holder(pid, c.start) != nil
		if !claimed && o.owned(open, c.ns, c.seen) {
			continue
		}
		if !claimed {
			_ = retry(func() error { return o.sys.pidfdSignal(c.fd, unix.SIGKILL) })
		}
		unix.Close(c.fd)
		delete(o.doomed, pid)
	}
}
