package children

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
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
				number := strconv.Itoa(int(status))
				p, out, err := start(o, exec.Command("busybox", "sh", "-c", "echo $0; exit $0", number))
				if err != nil {
					t.Error(err)
					return
				}
				exit, err := p.Wait(impatient(t))
				if text := string(out()); err != nil || exit.Status != status || text != number+"\n" {
					t.Errorf("%d: %+v, %v, %q", status, exit, err, text)
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

// A grandchild that keeps the output open does not hold the exit back, and a stream that would have to be copied is
// refused before anything is forked.
func TestOutputIsNotWaitedFor(t *testing.T) {
	o := owner(t, kernel{})
	_, marker := sleeper(t, "delay")
	p, out, err := start(o, exec.Command("sh", "-c", "sleep "+marker+" & echo said"))
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(impatient(t)); err != nil || exit.Status != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
	left := alive(t, marker)
	if len(left) != 1 {
		t.Errorf("%d grandchildren live, it should be one", len(left))
	}
	for _, pid := range left {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	if text := string(out()); text != "said\n" {
		t.Errorf("%q", text)
	}
	cmd := exec.Command("true")
	cmd.Stdout = new(bytes.Buffer)
	if _, err := o.Start(cmd); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a buffer for an output: %v", err)
	}
	if len(o.known) != 0 {
		t.Errorf("%d processes are known", len(o.known))
	}
}

// What is described as for os/exec comes to be: arguments, environment, directory, streams, further files.
func TestStartHeedsTheDescription(t *testing.T) {
	o := owner(t, kernel{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	t.Setenv("INHERITED", "yes")
	script := `echo "$0 $1 $PWD ${INHERITED-no} ${OWN-no}"; readlink /proc/self/fd/0; readlink /proc/self/fd/2; echo more >&3; [ ! -e /proc/self/fd/4 ]`
	for _, env := range [][]string{nil, {"PATH=" + os.Getenv("PATH"), "OWN=yes"}} {
		cmd := exec.Command("busybox", "sh", "-c", script, "zero", "one")
		cmd.Dir, cmd.Env, cmd.ExtraFiles = "/proc", env, []*os.File{w}
		p, out, err := start(o, cmd)
		if err != nil {
			t.Fatal(err)
		}
		if exit, err := p.Wait(impatient(t)); err != nil || exit.Status != 0 {
			t.Errorf("%+v, %v", exit, err)
		}
		want := "zero one /proc yes no\n/dev/null\n/dev/null\n"
		if env != nil {
			want = "zero one /proc no yes\n/dev/null\n/dev/null\n"
		}
		if got := string(out()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		more := make([]byte, 5)
		if _, err := io.ReadFull(r, more); err != nil || string(more) != "more\n" {
			t.Errorf("%q, %v", more, err)
		}
	}
	// An environment is taken as it is.
	cmd := exec.Command("busybox", "env")
	cmd.Dir, cmd.Env = "/proc", []string{"TWICE=1", "TWICE=2"}
	p, out, err := start(o, cmd)
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(impatient(t)); err != nil || exit.Status != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
	if got := string(out()); got != "TWICE=1\nTWICE=2\n" {
		t.Errorf("the environment is %q", got)
	}
	for _, cmd := range []*exec.Cmd{exec.Command("no-such-program-anywhere"), {Path: "/nowhere/at/all"}, {Path: "/bin/true", Dir: "/nowhere"}} {
		if _, err := o.Start(cmd); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, exec.ErrNotFound) {
			t.Errorf("%v: %v", cmd.Path, err)
		}
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

// cancelling is a kernel in which a wait's context ends in the moment in which
// the exit is taken.
type cancelling struct {
	system
	cancel context.CancelFunc
}

func (c *cancelling) waitid(idType, id int, peek bool) (exited, bool, error) {
	x, dead, err := c.system.waitid(idType, id, peek)
	if dead && !peek && idType == unix.P_PIDFD {
		c.cancel()
	}
	return x, dead, err
}

// F18: a wait whose context ends in the very moment of the exit has the exit, and
// the pidfd is given back.
func TestF18WaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o := owner(t, &cancelling{kernel{}, cancel})
	r, w := pipe(t)
	cmd := exec.Command("cat")
	cmd.Stdin = r
	p, err := o.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	result := make(chan error, 1)
	go func() { _, err := p.Wait(ctx); result <- err }()
	eventually(t, "the wait is in the poller", func() string {
		p.held.mu.Lock()
		defer p.held.mu.Unlock()
		if p.held.file == nil {
			return "not yet"
		}
		return ""
	})
	w.Close()
	if err := <-result; err != nil {
		t.Error(err)
	}
	if !p.held.released() {
		t.Error("the pidfd of a reaped process is still open")
	}
}

// F16: Died returns when the process is dead and not reaped, to many, before and
// after the exit.
func TestF16DiedBeforeTheReaping(t *testing.T) {
	o := owner(t, kernel{})
	child := claimed(t, o, o.OwnNamespace(), call{Argv: []string{"sleep", "3600"}})
	short, cancel := context.WithCancel(context.Background())
	cancel()
	if err := child.Died(short); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was given up: %v", err)
	}
	died := make(chan error, 2)
	for range cap(died) {
		go func() { died <- child.Died(impatient(t)) }()
	}
	if err := child.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	for range cap(died) {
		if err := <-died; err != nil {
			t.Error(err)
		}
	}
	if st, err := statOf(kernel{}, child.Pid()); err != nil || !st.dead() {
		t.Errorf("it was reaped, or lives: %+v, %v", st, err)
	}
	if exit, err := child.Wait(impatient(t)); err != nil || exit.Status != 137 {
		t.Errorf("%+v, %v", exit, err)
	}
	if err := child.Died(impatient(t)); err != nil {
		t.Error(err)
	}
}
