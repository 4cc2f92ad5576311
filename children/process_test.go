package children

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What this program forks itself is told its own exit, under a storm of exits, with its output whole.
func TestStartMany(t *testing.T) {
	o := owner(t, kernel{})
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 60 {
				status := uint32((worker*60 + i) % 256)
				number, out := strconv.Itoa(int(status)), bytes.Buffer{}
				cmd := exec.Command("busybox", "sh", "-c", "echo $0; exit $0", number)
				cmd.Stdout = &out
				p, err := o.Start(cmd)
				if err != nil {
					t.Error(err)
					return
				}
				exit, err := p.Wait(impatient(t))
				if err != nil || exit.Status != status || out.String() != number+"\n" {
					t.Errorf("%d: %+v, %v, %q", status, exit, err, out.String())
				}
				if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != int(status) {
					t.Errorf("%d: os/exec was not told: %v", status, cmd.ProcessState)
				}
			}
		})
	}
	group.Wait()
}

// No thread waits for a process: two hundred at once need no more threads than none.
func TestNoThreadPerProcess(t *testing.T) {
	o := owner(t, kernel{})
	const many = 200
	threads := func() int {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(tasks)
	}
	before := threads()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var calls []*Process
	for range many {
		p, err := o.Start(exec.Command("sleep", "3600"))
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, p)
		group.Go(func() { _, _ = p.Wait(ctx) })
	}
	eventually(t, "all wait", func() string {
		for _, p := range calls {
			p.held.mu.Lock()
			waits := p.held.file != nil
			p.held.mu.Unlock()
			if !waits {
				return "not yet"
			}
		}
		return ""
	})
	after := threads()
	cancel()
	group.Wait()
	for _, p := range calls {
		if err := p.Signal(unix.SIGKILL); err != nil {
			t.Error(err)
		}
		if _, err := p.Wait(impatient(t)); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d threads with %d processes waited for, %d before", after, many, before)
	if after > before+20 {
		t.Error("a thread per process")
	}
}

// A call is in a process group of its own, or in a session if the caller wants that, and no descriptor leaks into it.
func TestOwnProcessGroup(t *testing.T) {
	o := owner(t, kernel{})
	for _, attr := range []*syscall.SysProcAttr{nil, {Setsid: true}, {Pdeathsig: unix.SIGKILL}} {
		cmd := exec.Command("sleep", "3600")
		cmd.SysProcAttr = attr
		p, err := o.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		if group, err := unix.Getpgid(p.Pid()); err != nil || group != p.Pid() {
			t.Errorf("%+v: group %d, %v", attr, group, err)
		}
		if cmd.SysProcAttr != attr {
			t.Error("the caller's attributes were replaced")
		}
		// The program may be in the middle of loading a library of its own.
		eventually(t, "no descriptor leaked into the call", func() string {
			return strings.Join(inherited(t, p.Pid()), ", ")
		})
		if err := p.KillTree(nil); err != nil {
			t.Error(err)
		}
		if _, err := p.Wait(impatient(t)); err != nil {
			t.Error(err)
		}
	}
}

// inherited lists the descriptors of a process above 2 that are not such as we were started with ourselves, which any
// child has.
func inherited(t *testing.T, pid int) (extra []string) {
	t.Helper()
	entries, err := os.ReadDir(procPath(pid, "/fd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if fd > 2 && (err != nil || flags&unix.FD_CLOEXEC != 0) {
			link, _ := os.Readlink(procPath(pid, "/fd/"+entry.Name()))
			extra = append(extra, entry.Name()+" "+link)
		}
	}
	return extra
}

// A grandchild that keeps the output open holds Wait back no longer than WaitDelay, and ctx ends the wait before.
func TestWaitDelay(t *testing.T) {
	o := owner(t, kernel{})
	_, marker := sleeper(t, "delay")
	var out bytes.Buffer
	cmd := exec.Command("sh", "-c", "sleep "+marker+" & echo said")
	cmd.Stdout, cmd.WaitDelay = &out, 300*time.Millisecond
	p, err := o.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	exit, err := p.Wait(impatient(t))
	if err != nil || exit.Status != 0 || out.String() != "said\n" {
		t.Errorf("%+v, %v, %q", exit, err, out.String())
	}
	for _, pid := range alive(t, marker) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// #9218: third-party code that forks and waits by itself loses no child to the sweep, while orphans are being swept.
func TestGuard(t *testing.T) {
	o := owner(t, kernel{})
	stop := make(chan struct{})
	var storm, guarded sync.WaitGroup
	storm.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				run(t, o, crowd(20/thin))
			}
		}
	})
	var slow atomic.Int64
	for range 4 {
		guarded.Go(func() {
			for range 60 / (1 + thin/10) {
				err := o.Guard(func() error {
					cmd := exec.Command("busybox", "sh", "-c", "exit 3")
					if err := cmd.Start(); err != nil {
						return err
					}
					// Dead long before it is waited for: several sweeps see it.
					time.Sleep(sweepInterval)
					slow.Add(1)
					return cmd.Wait()
				})
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != 3 {
					t.Errorf("%v", err)
				}
			}
		})
	}
	guarded.Wait()
	close(stop)
	storm.Wait()
	t.Log(slow.Load(), "guarded children, none stolen")
}

// One who reaps behind our back is told on: the exit is lost, and nobody waits for ever.
func TestLost(t *testing.T) {
	o := owner(t, kernel{})
	child := claimed(t, o, o.OwnNamespace(), call{Argv: []string{"sleep", "3600"}})
	result := make(chan error, 1)
	go func() { _, err := child.Wait(impatient(t)); result <- err }()
	if err := unix.Kill(child.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	_, thief := unix.Wait4(child.Pid(), &status, 0, nil)
	err := <-result
	if thief == nil && !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	if thief != nil && err != nil { // we were faster
		t.Error(err)
	}
}

// Where epoll is full, an exit is seen all the same.
func TestNoPoller(t *testing.T) {
	o := owner(t, blocking{kernel{}})
	child := claimed(t, o, o.OwnNamespace(), call{Argv: []string{"sleep", "0.1"}})
	if exit, err := child.Wait(impatient(t)); err != nil || exit.Status != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
}

// blocking is a kernel whose pidfds the poller does not take.
type blocking struct{ system }

func (b blocking) pidfdOpen(pid int) (int, error) {
	return unix.PidfdOpen(pid, 0)
}
