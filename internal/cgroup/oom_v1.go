package cgroup

import (
	"fmt"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
	"github.com/larkshim/lark/internal/routine"
)

// listenV1 asks the kernel to signal an eventfd when the group, or one above it, runs out of memory
// (Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control").
func (w *OOMWatch) listenV1() error {
	sys := w.host.sys
	fd, err := sys.eventfd()
	if err != nil {
		return err
	}
	if err := register(sys, w.dir, fd); err != nil {
		sys.close(fd)
		return err
	}
	f := pollable(fd, "eventfd of "+w.dir)
	w.unsubscribe = func() { f.Close() }
	routine.Keep(nil, "watch for OOM kills", func() { w.hearV1(f) })
	return nil
}

// register ties the eventfd to memory.oom_control. The kernel keeps what it needs of both files; closing the eventfd
// ends the registration.
func register(sys *system, dir string, eventfd int) error {
	control, err := errno.RetryValue(func() (int, error) { return sys.open(path.Join(dir, "memory.oom_control"), unix.O_RDONLY) })
	if err != nil {
		return err
	}
	defer sys.close(control)
	return sys.writeFile(path.Join(dir, "cgroup.event_control"), fmt.Sprintf("%d %d", eventfd, control))
}

// hearV1 looks whenever the kernel signals. It ends when the eventfd is closed or the group is gone, which is signalled
// too.
func (w *OOMWatch) hearV1(f *os.File) {
	var counter [8]byte
	for {
		if _, err := f.Read(counter[:]); err != nil {
			return
		}
		if !w.lookUntilCounted() {
			return
		}
	}
}

// lookUntilCounted looks until the kill that was signalled has been counted. The kernel signals before it picks a victim
// (memcg1_oom_prepare) and counts after, with nothing in between to wait for: under_oom is cleared before the kill
// already. It may also never come, where the limit was that of a group above and the victim in another container, hence
// underOOMTotal. False ends the watch.
func (w *OOMWatch) lookUntilCounted() bool {
	t := time.NewTimer(0)
	defer t.Stop()
	wait := underOOMFirst
	for waited := time.Duration(0); waited < underOOMTotal; waited += wait {
		select {
		case <-t.C:
		case <-w.stop:
			return false
		}
		b, err := w.host.sys.readFile(path.Join(w.dir, w.file))
		if err != nil && gone(err) {
			return false
		}
		switch found, more := w.look(); {
		case !more:
			return false
		case found:
			return true
		case field(b, "oom_kill_disable") == 1 && field(b, "under_oom") == 1:
			// Nobody is killed: everything in the container that asks for memory stands still.
			return w.report()
		}
		t.Reset(wait)
		wait = min(2*wait, underOOMMost)
	}
	return true
}
