package children

// Pids that come back. In a pid namespace of the test's own with a small pid_max (per namespace since Linux 6.14) every pid
// is used again after some 160 forks: after the first round the kernel gives away those from 300 on only (RESERVED_PIDS),
// which leaves one single pid with the least pid_max that it takes, 301.

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const smallPidMax = "460"

// reuseReport is what the part in the namespace tells.
type reuseReport struct {
	Claimed, Reused, Refused int
	Wrong                    []string
}

// Row 56, W2, invariant 13: a pid that is forced to be used again is never another's exit.
func TestRow56PidReuse(t *testing.T) {
	o := owner(t, kernel{})
	cmd := part("reuse")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	p, out, err := start(o, cmd)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait(context.Background())
	if err != nil || exit.Status != 0 {
		t.Fatalf("%+v, %v: %s", exit, err, out())
	}
	var report reuseReport
	if err := json.Unmarshal(out(), &report); err != nil {
		t.Fatal(err, string(out()))
	}
	t.Logf("%d claimed, %d of them with a pid that was used before; %d claims of others' pids refused",
		report.Claimed, report.Reused, report.Refused)
	for _, wrong := range report.Wrong {
		t.Error(wrong)
	}
	if report.Reused < report.Claimed/2 || report.Refused == 0 {
		t.Error("the test has not tested what it is for")
	}
}

// playReuse is pid 1 of the small namespace.
func playReuse() {
	check(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	check(unix.Mount("proc", "/proc", "proc", 0, ""))
	check(os.WriteFile("/proc/sys/kernel/pid_max", []byte(smallPidMax), 0o644))
	o, err := newOwner(slog.New(slog.NewTextHandler(io.Discard, nil)), kernel{})
	check(err)
	r := &reuser{o: o, used: map[int]int{}}
	var group sync.WaitGroup
	for seed := range 3 {
		group.Go(func() { r.work(rand.New(rand.NewPCG(1, uint64(seed)))) })
	}
	group.Wait()
	check(o.Close())
	check(json.NewEncoder(os.Stdout).Encode(r.report))
}

// reuser makes children whose status says who they are.
type reuser struct {
	o      *Owner
	mu     sync.Mutex
	used   map[int]int // pid -> times
	report reuseReport
}

func (r *reuser) wrong(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Wrong = append(r.report.Wrong, fmt.Sprintf(format, args...))
}

// work runs calls whose children die at once. Each child's status is its own; some are left to be orphans; now and then
// a number is claimed that the call has not written down.
func (r *reuser) work(random *rand.Rand) {
	const calls = 120 / (1 + thin/10)
	for range calls {
		w := r.o.Begin(r.o.OwnNamespace())
		token, n := random.IntN(200), 1+random.IntN(12)
		pids, err := r.call(token, n)
		if err != nil && !errdefs.IsResourceExhausted(err) { // out of pids: that is the place for it
			r.wrong("call: %v", err)
		}
		for i, pid := range pids {
			if random.IntN(4) == 0 {
				continue // an orphan
			}
			r.claim(w, pid, uint32(token+i))
		}
		w.Close()
		late := r.o.Begin(r.o.OwnNamespace())
		if len(pids) > 0 {
			r.stale(late, pids[random.IntN(len(pids))])
		}
		late.Close()
	}
}

// call makes n children, the i-th of which exits with token+i.
func (r *reuser) call(token, n int) ([]int, error) {
	p, out, err := start(r.o, part("crowd", fmt.Sprint("CROWD=", n), fmt.Sprint("TOKEN=", token)))
	if err != nil {
		return nil, err
	}
	if _, err := p.Wait(context.Background()); err != nil {
		return nil, err
	}
	return parsePids(out(), nil)
}

func (r *reuser) claim(w *Window, pid int, want uint32) {
	child, err := w.Claim(pid)
	if err != nil {
		r.wrong("claim of %d: %v", pid, err)
		return
	}
	exit, err := child.Wait(context.Background())
	if err != nil || exit.Status != want {
		r.wrong("pid %d: %+v, %v, want %d", pid, exit, err, want)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Claimed++
	if r.used[pid]++; r.used[pid] > 1 {
		r.report.Reused++
	}
}

// stale claims a pid of a call that is over: who has the number now, if anybody, did not begin in this window.
func (r *reuser) stale(w *Window, pid int) {
	nextTick(r.o)
	child, err := w.Claim(pid)
	if err == nil {
		// Another worker's call may have been given the number in this very window; that is a child indeed, and younger.
		if child.held.start < w.ticks {
			r.wrong("claimed %d, older than the window", pid)
		}
		_, _ = child.Wait(context.Background())
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Refused++
}
