package children

// Kill-own: a container's processes in a cgroup that other containers use too.

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Belongings tell the processes of one container from those of others in the
// same cgroup: by descent, since a process has no other mark that it keeps.
type Belongings struct {
	// Init is the container's init and Start its start time, field 22 of
	// proc_pid_stat(5). Init is 0 if it is dead. Both have to be right.
	Init  int
	Start uint64
	// Others are the inits and execs of other containers.
	Others []int
	// Adopted says that orphans which this program has adopted, as the
	// subreaper (PR_SET_CHILD_SUBREAPER in prctl(2)), are the container's.
	Adopted bool
}

// KillOwn kills those processes in a cgroup, and in those below it, that are
// init, descend from it, or were adopted from it. It returns when they are
// dead, and how many of the rest belong, as far as can be seen, to no other
// container either: these are left alone.
//
// A process counts as a descendant only if it is no older than its ancestor: a
// number that was given away proves no descent. Frozen processes are not
// thawed, since a cgroup thaws as a whole.
func (o *Owner) KillOwn(ctx context.Context, cgroup string, b Belongings) (strangers int, err error) {
	for pause := killAllPauseMin; ; pause = min(2*pause, killAllPauseMax) {
		killed, err := o.killOwnOnce(ctx, cgroup, b)
		if err != nil {
			return 0, classed(fmt.Sprintf("processes of cgroup %q", cgroup), err)
		}
		if killed == 0 {
			return o.strangers(cgroup, b)
		}
		if !o.pause(ctx, pause) {
			return 0, fmt.Errorf("%d processes in cgroup %q are not dead yet: %w", killed, cgroup, context.Cause(ctx))
		}
	}
}

// killOwnOnce stops all of the container's processes before it kills the first:
// a child whose parent has died descends from init no more, and what is stopped
// makes none. It returns how many there were.
func (o *Owner) killOwnOnce(ctx context.Context, cgroup string, b Belongings) (int, error) {
	held := make(map[int]int) // descriptors by pid
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for round, quiet := 0, 0; round < settleRounds && quiet < 2; round++ {
		pids, err := o.cgroupProcs(cgroup)
		if err != nil {
			return 0, err
		}
		quiet++
		for _, pid := range pids {
			if _, ok := held[pid]; ok || !o.belongs(pid, b) {
				continue
			}
			fd, err := o.openChild(pid)
			if errors.Is(err, ErrNotChild) {
				continue
			}
			if err != nil {
				return 0, err
			}
			if !o.belongs(pid, b) || o.signalFD(fd, unix.SIGSTOP) != nil { // another may have got the number
				unix.Close(fd)
				continue
			}
			held[pid], quiet = fd, 0
		}
		o.rest(settlePause) // a fork that was under way comes to its end
	}
	for _, fd := range held {
		_ = o.signalFD(fd, unix.SIGKILL) // the next round sees who lives
	}
	for _, fd := range held {
		// Once init is dead nothing else tells that these were its own.
		for !isExited(fd) && o.pause(ctx, killAllPauseMin) {
		}
	}
	return len(held), nil
}

// isExited reports whether the process behind a pidfd is dead: the pidfd is
// readable then (pidfd_open(2)).
func isExited(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n > 0 || err != nil && err != unix.EINTR
}

func (o *Owner) signalFD(fd int, sig unix.Signal) error {
	return retry(func() error { return o.sys.pidfdSignal(fd, sig) })
}

// belongs follows the parents of a process to init, to another container, or to
// this program.
func (o *Owner) belongs(pid int, b Belongings) bool {
	for child := ^uint64(0); ; {
		if slices.Contains(b.Others, pid) {
			return false
		}
		if pid == o.self {
			return b.Adopted
		}
		if pid <= 1 {
			return false
		}
		st, err := statOf(o.sys, pid)
		if err != nil || st.start > child {
			return false
		}
		if b.Init != 0 && pid == b.Init {
			return st.start == b.Start && !st.dead()
		}
		pid, child = st.parent, st.start
	}
}

// strangers counts the processes of a cgroup that neither descend from another
// container's process nor live in its pid namespace, if that is not ours.
func (o *Owner) strangers(cgroup string, b Belongings) (n int, err error) {
	pids, err := o.cgroupProcs(cgroup)
	if err != nil {
		return 0, classed(fmt.Sprintf("processes of cgroup %q", cgroup), err)
	}
	spaces := make(map[uint64]bool)
	for _, pid := range b.Others {
		if ino, err := namespaceOf(o.sys, pid, o.own.ino.Load()); err == nil && ino != o.own.ino.Load() && ino != otherNS {
			spaces[ino] = true
		}
	}
	for _, pid := range pids {
		ino, err := namespaceOf(o.sys, pid, o.own.ino.Load())
		if err == nil && !spaces[ino] && !o.descends(pid, b.Others) {
			n++
		}
	}
	return n, nil
}

// descends reports whether one of the processes is pid or an ancestor of it.
func (o *Owner) descends(pid int, from []int) bool {
	for pid > 1 {
		if slices.Contains(from, pid) {
			return true
		}
		st, err := statOf(o.sys, pid)
		if err != nil {
			return false
		}
		pid = st.parent
	}
	return false
}

// StartOf is the start time of a process, field 22 of proc_pid_stat(5), which
// with its number is its identity.
func (o *Owner) StartOf(pid int) (uint64, error) {
	st, err := statOf(o.sys, pid)
	if err != nil {
		return 0, classed(fmt.Sprintf("process %d", pid), err)
	}
	return st.start, nil
}
