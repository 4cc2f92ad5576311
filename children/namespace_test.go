package children

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// A runtime call that hangs in one container's window does not hold back the exit of another container's init: not in the
// host's pid namespace, and not in one of its own, where the kernel lets nobody reap init before every zombie of that
// namespace has been reaped.
func TestHungCallOfAnotherContainer(t *testing.T) {
	o := owner(t, kernel{})
	containerA := NewNamespace()
	initA := claimed(t, o, containerA, call{Argv: []string{"sleep", "3600"}, New: true})
	for _, hung := range []struct {
		name string
		ns   *PIDNamespace
	}{
		{"exec", containerA}, {"create", NewNamespace()}, {"host", o.OwnNamespace()},
	} {
		t.Run(hung.name, func(t *testing.T) {
			w := o.Begin(hung.ns)
			defer w.Close()
			took := initDiesWithZombie(t, o, NewNamespace(), true)
			t.Logf("init's exit seen %v after its death", took)
			if hung.name != "host" {
				took = initDiesWithZombie(t, o, o.OwnNamespace(), false)
				t.Logf("in the host's namespace: %v", took)
			}
		})
	}
	end(t, initA)
}

// initDiesWithZombie makes container B, leaves an unclaimed zombie of its namespace behind, and kills its init.
func initDiesWithZombie(t *testing.T, o *Owner, ns *PIDNamespace, private bool) time.Duration {
	t.Helper()
	initB := claimed(t, o, ns, call{Argv: []string{"sleep", "3600"}, New: private})
	c := call{Argv: []string{"true"}}
	if private {
		c.Join = procPath(initB.Pid(), "/ns/pid")
	}
	run(t, o, c.command(t)) // an exec whose shim's call was given up: nobody claims it
	began := time.Now()
	end(t, initB)
	return time.Since(began)
}

// The window that may own a zombie does keep it, in its own pid namespace too; that is the other side of the promise.
func TestZombieIsKeptForItsWindow(t *testing.T) {
	o := owner(t, kernel{})
	container := NewNamespace()
	pid1 := claimed(t, o, container, call{Argv: []string{"sleep", "3600"}, New: true})
	w := o.Begin(container)
	pid := run(t, o, call{Argv: []string{"true"}, Join: procPath(pid1.Pid(), "/ns/pid")}.command(t))[0]
	dies(t, pid)
	for range 5 { // as many sweeps as there may be, each of which sees it
		run(t, o, crowd(10))
		o.sweep()
	}
	child, err := w.Claim(pid)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if exit, err := child.Wait(impatient(t)); err != nil || exit.Status != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
	end(t, pid1)
}

// What a window learns of the namespace, and what is refused by it.
func TestNamespaceIsLearnt(t *testing.T) {
	o := owner(t, kernel{})
	private := NewNamespace()
	pid1 := claimed(t, o, private, call{Argv: []string{"sleep", "3600"}, New: true})
	if private.Shared() {
		t.Error("a namespace of its own is shared")
	}
	joined, err := NamespaceAt(procPath(pid1.Pid(), "/ns/pid"))
	if err != nil {
		t.Fatal(err)
	}
	if !joined.Shared() || joined.ino.Load() != private.ino.Load() {
		t.Error("joined:", joined.Shared(), joined.ino.Load(), private.ino.Load())
	}
	joiner := claimed(t, o, joined, call{Argv: []string{"sleep", "3600"}, Join: procPath(pid1.Pid(), "/ns/pid")})
	end(t, joiner)
	end(t, pid1)

	// A runtime that makes no namespace although it was to.
	lying := NewNamespace()
	child := claimed(t, o, lying, call{Argv: []string{"sleep", "3600"}})
	if !lying.Shared() {
		t.Error("init lives in our namespace, which is not called shared")
	}
	end(t, child)
}

func TestNamespaceAtRefuses(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, is := range map[string]func(error) bool{
		filepath.Join(dir, "nothing"): errdefs.IsFailedPrecondition, file: errdefs.IsInvalidArgument, fifo: errdefs.IsInvalidArgument,
		"/proc/self/ns/mnt": errdefs.IsInvalidArgument, dir: errdefs.IsInvalidArgument,
	} {
		if ns, err := NamespaceAt(path); ns != nil || !is(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Kernels and machines on which an Owner cannot work are refused, with a reason.
func TestRefusesOldKernels(t *testing.T) {
	for name, sys := range map[string]system{
		"no waitid by pidfd": &broken{system: kernel{}, wait: unix.EINVAL},
		"no pidfd":           &broken{system: kernel{}, open: unix.ENOSYS},
		"no children files":  &broken{system: kernel{}, read: unix.ENOENT},
		"another's /proc":    &broken{system: kernel{}, link: "1234567"},
	} {
		if o, err := newOwner(nil, sys); o != nil || !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Log(err)
		}
	}
}

// broken is a kernel that lacks something.
type broken struct {
	system
	wait, open, read error
	link             string
}

func (b *broken) waitid(idType, id int, peek bool) (exited, bool, error) {
	if b.wait != nil {
		return exited{}, false, b.wait
	}
	return b.system.waitid(idType, id, peek)
}

func (b *broken) pidfdOpen(pid int) (int, error) {
	if b.open != nil {
		return -1, b.open
	}
	return b.system.pidfdOpen(pid)
}

func (b *broken) readFile(path string, buf []byte) (int, error) {
	if b.read != nil {
		return 0, b.read
	}
	return b.system.readFile(path, buf)
}

func (b *broken) readLink(path string) (string, error) {
	if b.link != "" {
		return b.link, nil
	}
	return b.system.readLink(path)
}

// F18: a second Owner would reap the first one's children. It is refused, and
// changes nothing; after Close, and after an Owner that could not be made, there
// may be another.
func TestF18SecondOwnerIsRefused(t *testing.T) {
	if _, err := newOwner(nil, &broken{system: kernel{}, open: unix.ENOSYS}); !errdefs.IsNotImplemented(err) {
		t.Fatal(err)
	}
	first, err := NewOwner(nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		second, err := NewOwner(nil)
		if second != nil || !errors.Is(err, ErrSecondOwner) || !errdefs.IsFailedPrecondition(err) {
			t.Errorf("a second owner: %v", err)
		}
	}
	// The first is as it was: its children are its own.
	child := claimed(t, first, first.OwnNamespace(), call{Argv: []string{"true"}})
	if exit, err := child.Wait(impatient(t)); err != nil || exit.Status != 0 {
		t.Errorf("a child of the first: %+v, %v", exit, err)
	}
	for range 2 { // Close twice gives the place back once
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}
	owner(t, kernel{})
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := NewOwner(nil); !errors.Is(err, ErrSecondOwner) {
		t.Errorf("a second owner, after the first was closed again: %v", err)
	}
}

// A closed Owner says so, to those who wait as well; what it had open is given back.
func TestClose(t *testing.T) {
	before := descriptors(t)
	o, err := NewOwner(nil)
	if err != nil {
		t.Fatal(err)
	}
	child := claimed(t, o, o.OwnNamespace(), call{Argv: []string{"sleep", "3600"}})
	result := make(chan error, 1)
	go func() { _, err := child.Wait(context.Background()); result <- err }()
	eventually(t, "somebody waits", func() string {
		child.held.mu.Lock()
		defer child.held.mu.Unlock()
		if child.held.file == nil {
			return "nobody"
		}
		return ""
	})
	for range 2 {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-result; !errors.Is(err, ErrClosed) || !errdefs.IsUnavailable(err) {
		t.Error(err)
	}
	if _, err := o.Start(part("crowd")); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := o.Begin(o.OwnNamespace()).Claim(child.Pid()); !errors.Is(err, ErrWindowClosed) {
		t.Error(err)
	}
	if after := descriptors(t); after > before+2 {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
	// It is still our child; the next Owner finds it and buries it.
	if err := unix.Kill(child.Pid(), unix.SIGKILL); err != nil {
		t.Error(err)
	}
	owner(t, kernel{})
}

// Errors of exec.Cmd.Start stay what they are.
func TestStartErrors(t *testing.T) {
	o := owner(t, kernel{})
	_, err := o.Start(exec.Command("/nowhere/runc"))
	if !errors.Is(err, fs.ErrNotExist) || !errdefs.IsFailedPrecondition(err) {
		t.Error(err)
	}
	t.Log(fmt.Sprint(err))
}
