package children

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper is a command that sleeps for ever and can be told from all others by its argument.
func sleeper(t testing.TB, name string) (argv []string, marker string) {
	marker = fmt.Sprintf("99999.%d%d", os.Getpid(), rand.Uint32())
	return []string{"sleep", marker}, marker
}

// noneAlive asserts that nothing with the marker is left, and cleans up if so.
func noneAlive(t testing.TB, marker string) {
	t.Helper()
	eventually(t, "nothing is left", func() string {
		if pids := alive(t, marker); len(pids) > 0 {
			return describe(pids)
		}
		return ""
	})
	for _, pid := range alive(t, marker) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// A call is killed with all that it has begun: children, grandchildren, those that left its group and session, and those
// in other namespaces.
func TestKillTree(t *testing.T) {
	o := owner(t, kernel{})
	argv, marker := sleeper(t, "tree")
	sleep := strings.Join(argv, " ")
	script := fmt.Sprintf(`%[1]s & setsid %[1]s & (setsid sh -c '%[1]s & %[1]s; true') & unshare --pid --fork %[1]s & %[1]s; true`, sleep)
	p, err := o.Start(exec.Command("sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are there", func() string {
		// Six sleepers, and unshare, which waits for one of them.
		if n := len(alive(t, "sleep\x00"+marker)); n != 7 {
			return fmt.Sprint(n)
		}
		return ""
	})
	if err := p.KillTree(nil); err != nil {
		t.Error(err)
	}
	if pids := alive(t, marker); len(pids) > 0 {
		t.Error("left:", describe(pids))
	}
	if exit, err := p.Wait(impatient(t)); err != nil || exit.Status != 137 {
		t.Errorf("%+v, %v", exit, err)
	}
	if err := p.KillTree(nil); err != nil { // of a call that is over
		t.Error(err)
	}
}

// What a killed call has left in the container's own namespace goes too, but not what another call's window may own: that
// waits for the window, and lives if it is claimed there.
func TestKillTreeSparesOtherWindows(t *testing.T) {
	o := owner(t, kernel{})
	argv, marker := sleeper(t, "spare")
	container := NewNamespace()
	pid1 := claimed(t, o, container, call{Argv: []string{"sleep", "3600"}, New: true})
	join := call{Argv: argv, Join: procPath(pid1.Pid(), "/ns/pid"), Setsid: true}

	p, err := o.Start(exec.Command("sleep", "3600")) // the call
	if err != nil {
		t.Fatal(err)
	}
	left := run(t, o, join.command(t))[0]
	other := o.Begin(container)
	theirs := run(t, o, join.command(t))[0]
	orphan := run(t, o, join.command(t))[0]
	bystander := run(t, o, call{Argv: argv}.command(t))[0] // in the host's namespace
	if err := p.KillTree(container); err != nil {
		t.Error(err)
	}
	for _, pid := range []int{left, theirs, orphan, bystander} {
		if st, err := statOf(kernel{}, pid); err != nil || st.dead() {
			t.Errorf("%d was killed although a window is open that may own it: %v", pid, err)
		}
	}
	child, err := other.Claim(theirs)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	eventually(t, "the two that nobody claims are gone", func() string {
		if pids := alive(t, marker); len(pids) != 2 {
			return describe(pids)
		}
		return ""
	})
	if st, err := statOf(kernel{}, bystander); err != nil || st.dead() {
		t.Error("the bystander was killed")
	}
	_ = unix.Kill(bystander, unix.SIGKILL)
	end(t, child)
	end(t, pid1)
	noneAlive(t, marker)
}

// Row 33: the runtime died between the fork and the pid file, and nobody knows the namespace it has made.
func TestKillTreeFindsWhatAnUnfinishedCreateHasMade(t *testing.T) {
	o := owner(t, kernel{})
	argv, marker := sleeper(t, "create")
	w, ns := o.Begin(NewNamespace()), NewNamespace()
	defer w.Close()
	p, err := o.Start(call{Argv: argv, New: true, Setsid: true, Hang: true}.command(t))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is there", func() string {
		if len(alive(t, "sleep\x00"+marker)) != 1 {
			return "not yet"
		}
		return ""
	})
	if err := p.Signal(unix.SIGKILL); err != nil { // not by us: the out-of-memory killer, say
		t.Error(err)
	}
	if _, err := p.Wait(impatient(t)); err != nil {
		t.Error(err)
	}
	w.Close()
	if err := p.KillTree(ns); err != nil {
		t.Error(err)
	}
	noneAlive(t, marker)
}

// killing is one storm of calls that are killed at random moments.
type killing struct {
	o      *Owner
	marker string
	dir    string
	joined *PIDNamespace
	path   string // of joined
	argv   []string
	within time.Duration

	mu                               sync.Mutex
	killed, inTime, claimedAfterKill int
}

// one makes a call, kills it at a random moment if it is not over by then, and takes what it has written down.
func (k *killing) one(t *testing.T, i int, random *rand.Rand) {
	ns, c := k.joined, call{Argv: k.argv, Setsid: i%2 == 0, PidFile: filepath.Join(k.dir, strconv.FormatUint(random.Uint64(), 36))}
	switch i % 4 {
	case 0:
		ns = k.o.OwnNamespace()
	case 1:
		ns, c.New = NewNamespace(), true
	case 2:
		c.Join = k.path
	case 3: // leaves a tree behind, in its own process group, of which the middle has gone
		ns, c.Setsid = k.o.OwnNamespace(), false
		c.Argv = []string{"sh", "-c", strings.Join(k.argv, " ") + " & sh -c '" + strings.Join(k.argv, " ") + " & true'; wait"}
	}
	w := k.o.Begin(ns)
	defer w.Close()
	p, err := k.o.Start(c.command(t))
	if err != nil {
		t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(impatient(t), time.Duration(random.Int64N(int64(k.within))))
	defer cancel()
	_, err = p.Wait(ctx)
	killed := err != nil
	if killed {
		if err := p.KillTree(ns); err != nil {
			t.Error(err)
		}
		if _, err := p.Wait(impatient(t)); err != nil {
			t.Error(err)
		}
	}
	k.take(t, w, c, killed)
}

// take claims and kills what the call has written down, which it may have done in the very moment of the kill.
func (k *killing) take(t *testing.T, w *Window, c call, killed bool) {
	text, err := os.ReadFile(c.PidFile)
	late := false
	if err == nil {
		pid, _ := strconv.Atoi(string(text))
		child, err := w.Claim(pid)
		late = err == nil && killed
		switch {
		case err == nil:
			if c.Argv[0] == "sh" { // its children are the container's, and go with its cgroup; here with its group
				group, err := unix.Getpgid(pid)
				if err == nil && group > 1 && group != unix.Getpgrp() {
					_ = unix.Kill(-group, unix.SIGKILL)
				}
			}
			_ = child.Signal(unix.SIGKILL)
			if _, err := child.Wait(impatient(t)); err != nil {
				t.Error(err)
			}
		case !killed:
			t.Errorf("%+v: %v", c, err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case late:
		k.claimedAfterKill++
	case killed:
		k.killed++
	default:
		k.inTime++
	}
}

// A thousand runtime calls killed at random moments leave no process behind.
func TestCallsKilledAtRandom(t *testing.T) {
	o := owner(t, kernel{})
	target := 1000 / thin
	if soak {
		target = 20000
	}
	argv, marker := sleeper(t, "random")
	container := NewNamespace()
	pid1 := claimed(t, o, container, call{Argv: []string{"sleep", "3600"}, New: true})
	k := &killing{
		o: o, marker: marker, dir: t.TempDir(), joined: container, path: procPath(pid1.Pid(), "/ns/pid"), argv: argv,
		within: patience,
	}
	for range 5 { // how long one takes here
		began := time.Now()
		end(t, claimed(t, o, o.OwnNamespace(), call{Argv: argv}))
		k.within = min(k.within, 2*time.Since(began))
	}
	var group sync.WaitGroup
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	const workers = 4
	for worker := range workers {
		group.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(worker)))
			for i := worker; k.dead() < target && !t.Failed(); i += workers + 1 {
				k.one(t, i, random)
			}
		})
	}
	group.Wait()
	noneAlive(t, marker)
	end(t, pid1)
	t.Logf("%d killed, %d killed after they had written their pid, %d over in time", k.killed, k.claimedAfterKill, k.inTime)
	if k.inTime+k.claimedAfterKill < target/100 {
		t.Error("the moments were not random enough: hardly one was late")
	}
}

// dead is how many calls were killed.
func (k *killing) dead() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.killed + k.claimedAfterKill
}
