package children

// Fail the N-th call of the kernel, for every N: rows 47 and 48.

import (
	"context"
	"errors"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// faulty is a kernel in which one call fails.
type faulty struct {
	system
	mu     sync.Mutex
	calls  int
	failAt int // the number of the call that fails, counted from 1; 0 for none
	with   unix.Errno
	failed string // which it was
}

// fails counts a call and says whether it is the one.
func (f *faulty) fails(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.calls != f.failAt {
		return nil
	}
	f.failed = name
	return f.with
}

// arm makes the n-th call from now on fail.
func (f *faulty) arm(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt = f.calls + n
}

// disarm tells which call has failed, if any.
func (f *faulty) disarm() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt = 0
	return f.failed
}

func (f *faulty) pidfdOpen(pid int) (int, error) {
	if err := f.fails("pidfd_open"); err != nil {
		return -1, err
	}
	return f.system.pidfdOpen(pid)
}

func (f *faulty) pidfdSignal(fd int, sig unix.Signal) error {
	if err := f.fails("pidfd_send_signal"); err != nil {
		return err
	}
	return f.system.pidfdSignal(fd, sig)
}

func (f *faulty) waitid(idType, id int, peek bool) (exited, bool, error) {
	if err := f.fails("waitid"); err != nil {
		return exited{}, false, err
	}
	return f.system.waitid(idType, id, peek)
}

func (f *faulty) killGroup(pgid int, sig unix.Signal) error {
	if err := f.fails("kill"); err != nil {
		return err
	}
	return f.system.killGroup(pgid, sig)
}

func (f *faulty) fork(path string, argv []string, attr *syscall.ProcAttr, fl *flight) (int, error) {
	if err := f.fails("fork"); err != nil {
		return 0, err
	}
	return f.system.fork(path, argv, attr, fl)
}

func (f *faulty) readFile(path string, buf []byte) (int, error) {
	if err := f.fails("read " + path); err != nil {
		return 0, err
	}
	return f.system.readFile(path, buf)
}

func (f *faulty) subDirs(path string) ([]string, error) {
	if err := f.fails("getdents " + path); err != nil {
		return nil, err
	}
	return f.system.subDirs(path)
}

func (f *faulty) readLink(path string) (string, error) {
	if err := f.fails("readlink " + path); err != nil {
		return "", err
	}
	return f.system.readLink(path)
}

// scenario is one container's life as its shim sees it: a call that is killed, an exec that is claimed and killed, an
// orphan. It reports the first error that the caller was told; whatever that was, nothing may be left.
func scenario(t *testing.T, o *Owner) (told error) {
	tell := func(err error) {
		if told == nil {
			told = err
		}
	}
	w := o.Begin(o.OwnNamespace())
	defer w.Close()
	cmd := exec.Command("busybox", "sh", "-c", "sleep 3600 >/dev/null 2>&1 & echo $!; (exit 5)& :")
	p, out, err := start(o, cmd)
	if err != nil {
		return err
	}
	if exit, err := p.Wait(impatient(t)); err != nil || exit.Status != 0 {
		t.Errorf("the call: %+v, %v", exit, err)
	}
	pids, err := parsePids(out(), nil)
	if err != nil || len(pids) != 1 {
		t.Fatal(pids, err)
	}
	child, err := w.Claim(pids[0])
	if err != nil {
		tell(err)
		_ = unix.Kill(pids[0], unix.SIGKILL) // the caller's kill-all
	} else {
		if err := child.Signal(unix.SIGKILL); err != nil {
			tell(err)
			_ = unix.Kill(pids[0], unix.SIGKILL)
		}
		if exit, err := child.Wait(impatient(t)); err != nil || exit.Status != 137 {
			t.Errorf("the child: %+v, %v", exit, err)
		}
	}
	hung, err := o.Start(exec.Command("sh", "-c", "sleep 3600; true"))
	if err != nil {
		return err
	}
	tell(hung.KillTree(nil))
	if exit, err := hung.Wait(impatient(t)); err != nil || exit.Status != 137 {
		t.Errorf("the hung call: %+v, %v", exit, err)
	}
	return told
}

// tally is what became of the failures.
type tally struct{ told, mended int }

// Every failure is told or mended: no exit is lost, no wait hangs, no process and no descriptor is left.
func TestFailTheNthCall(t *testing.T) {
	var sum tally
	for _, with := range []unix.Errno{unix.EMFILE, unix.EAGAIN, unix.EINTR, unix.EIO} {
		for n := 1; sum.failNth(t, n, with) && !t.Failed(); n++ {
		}
	}
	t.Logf("%d failures: %d told to the caller, %d mended", sum.told+sum.mended, sum.told, sum.mended)
	if sum.told == 0 || sum.mended == 0 {
		t.Error("the failures were none")
	}
}

// failNth runs the scenario and lets one call fail. It reports whether there was such a call.
func (sum *tally) failNth(t *testing.T, n int, with unix.Errno) bool {
	f := &faulty{system: kernel{}, with: with}
	before := descriptors(t)
	o, err := newOwner(quiet(), f)
	if err != nil {
		t.Fatal(err)
	}
	f.arm(n)
	err = scenario(t, o)
	failed := f.disarm()
	switch {
	case err != nil && failed == "":
		t.Errorf("without a failure: %v", err)
	case err != nil && with == unix.EINTR && failed != "fork":
		t.Errorf("%d: EINTR of %s was told: %v", n, failed, err)
	case err != nil && !errors.Is(err, with) && !errors.Is(err, context.DeadlineExceeded):
		t.Errorf("%d: %v of %s told as %v", n, with, failed, err)
	case err != nil:
		sum.told++
	case failed != "":
		sum.mended++
	}
	eventually(t, with.Error()+" of "+failed, func() string {
		if pids, err := childrenOf(kernel{}, "self"); err != nil || len(pids) > 0 {
			return "left: " + describe(pids)
		}
		return ""
	})
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if after := descriptors(t); after > before+2 {
		t.Errorf("%v of %s: %d descriptors open, %d before", with, failed, after, before)
	}
	return failed != ""
}
