package children

// A pid is no identity: entries of the tables that outlive their process (other
// code of this program has reaped it) are not taken for the process that has the
// number now. F17, FAULTS.md.

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// F17: a stale entry of a zombie, whose number a dead child has that the window
// in which it died still waits for. The sweep leaves that child alone.
func TestF17StaleZombieWithAReusedNumber(t *testing.T) {
	o := owner(t, kernel{})
	w := o.Begin(o.OwnNamespace())
	defer w.Close()
	for i, pid := range run(t, o, crowd(20)) {
		st, err := statOf(kernel{}, pid)
		if err != nil {
			t.Fatal(err)
		}
		stale := zombie{start: st.start - 1, ns: o.own.ino.Load()}
		o.mu.Lock()
		o.zombies[pid] = stale
		o.mu.Unlock()
		o.bury(pid, stale)
		child, err := w.Claim(pid)
		if err != nil {
			t.Fatalf("the sweep has reaped another process with the number: %v", err)
		}
		if exit, err := child.Wait(impatient(t)); err != nil || exit.Status != uint32(i) {
			t.Errorf("%+v, %v, want %d", exit, err, i)
		}
	}
}

// F17: a known process that other code has reaped does not make its number a
// claimed one, and does not keep its namespace in use.
func TestF17LostProcessWithAReusedNumber(t *testing.T) {
	o := owner(t, kernel{})
	own := o.own.ino.Load()
	w := o.Begin(o.OwnNamespace())
	defer w.Close()
	pid := run(t, o, crowd(1))[0]
	st, err := statOf(kernel{}, pid)
	if err != nil {
		t.Fatal(err)
	}
	lost := newHeld(o, pid, -1)
	lost.start, lost.entry, lost.ns = st.start-1, st.start-1, own
	o.mu.Lock()
	o.put(lost)
	o.mu.Unlock()
	child, err := w.Claim(pid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Claim(pid); err == nil {
		t.Error("claimed twice")
	}
	if exit, err := child.Wait(impatient(t)); err != nil || exit.Status != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := o.inUse[own]; n != 0 {
		t.Errorf("%d processes in use, none is left", n)
	}
}

// F17: a stale sentence, whose number another survivor of a killed call has,
// does not save that survivor.
func TestF17StaleSentenceWithAReusedNumber(t *testing.T) {
	o := owner(t, kernel{})
	argv, marker := sleeper(t, "sentence")
	container := NewNamespace()
	pid1 := claimed(t, o, container, call{Argv: []string{"sleep", "3600"}, New: true})
	// An earlier window of the container keeps the sentence from being executed.
	open := o.Begin(container)
	p, err := o.Start(part("crowd", "CROWD=0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(impatient(t)); err != nil {
		t.Fatal(err)
	}
	pid := run(t, o, call{Argv: argv, Join: procPath(pid1.Pid(), "/ns/pid"), Setsid: true}.command(t))[0]
	st, err := statOf(kernel{}, pid)
	if err != nil {
		t.Fatal(err)
	}
	stale, err := unix.PidfdOpen(pid1.Pid(), 0) // any descriptor
	if err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	o.doomed[pid] = &condemned{fd: stale, start: st.start - 1, ns: container.ino.Load(), seen: o.order}
	o.order++
	o.mu.Unlock()
	o.condemn(container, p.held.start)
	o.mu.Lock()
	c := o.doomed[pid]
	if c == nil || c.start != st.start {
		t.Errorf("the survivor is not sentenced: %+v", c)
	}
	o.mu.Unlock()
	open.Close()
	noneAlive(t, marker)
	if st, err := statOf(kernel{}, pid1.Pid()); err != nil || st.dead() {
		t.Error("the process behind the stale sentence was killed")
	}
	end(t, pid1)
}

// A process of another container's pid namespace is refused by every window but
// that container's, is not signalled, and teaches no window its namespace.
func TestClaimRefusesAnotherContainersNamespace(t *testing.T) {
	o := owner(t, kernel{})
	sleep := call{Argv: []string{"sleep", "3600"}, New: true}
	spaceA, spaceB := NewNamespace(), NewNamespace()
	initA, initB := claimed(t, o, spaceA, sleep), claimed(t, o, spaceB, sleep)
	at, err := NamespaceAt(procPath(initA.Pid(), "/ns/pid"))
	if err != nil {
		t.Fatal(err)
	}
	fresh := NewNamespace()
	windows := map[string]*Window{
		"the host's": o.Begin(o.OwnNamespace()), "another container's": o.Begin(spaceA),
		"of a container that joins another's": o.Begin(at), "of a container that is created": o.Begin(fresh),
	}
	right := o.Begin(spaceB)
	defer right.Close()
	pid := run(t, o, call{Argv: []string{"sleep", "3600"}, Join: procPath(initB.Pid(), "/ns/pid")}.command(t))[0]
	// In a namespace in which no process is claimed: only a container that is
	// created may have it.
	young := run(t, o, sleep.command(t))[0]
	defer func() { // on failure too, for the owner waits for all to be reaped
		if t.Failed() {
			for _, victim := range []int{pid, young, initA.Pid(), initB.Pid()} {
				_ = unix.Kill(victim, unix.SIGKILL)
			}
			_ = o.Close()
		}
	}()
	for name, w := range windows {
		if c, err := w.Claim(pid); !errors.Is(err, ErrWrongNamespace) {
			t.Fatalf("claimed by a window %s: %+v, %v", name, c, err)
		}
		if w.ns != fresh {
			if c, err := w.Claim(young); !errors.Is(err, ErrWrongNamespace) {
				t.Fatalf("of an unknown namespace, claimed by a window %s: %+v, %v", name, c, err)
			}
		}
		w.Close()
	}
	if ino := fresh.ino.Load(); ino != 0 {
		t.Errorf("the created container has learnt namespace %d from a refused claim", ino)
	}
	child, err := right.Claim(pid)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := statOf(kernel{}, pid); err != nil || st.dead() {
		t.Errorf("the refused process was killed: %v", err)
	}
	if err := unix.Kill(young, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	for _, c := range []*Child{child, initA, initB} {
		end(t, c)
	}
}
