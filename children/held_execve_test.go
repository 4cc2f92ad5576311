package children

// F11: an execve that takes long stops nothing else.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/heldexec"
)

// gated makes a program that exits with 0 and a gate in front of it.
func gated(t *testing.T) (path string, g *heldexec.Gate) {
	t.Helper()
	if !canVfork {
		t.Skip("this build forks as syscall.StartProcess does")
	}
	from, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "true")
	if err := os.WriteFile(path, text, 0o700); err != nil {
		t.Fatal(err)
	}
	if g, err = heldexec.Open(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return path, g
}

// While two executions are held, a program with one P goes on: other forks, exits, timers, signals by pidfd, collections
// of garbage, the end of a pipe that was open at the time of the fork. The same where the kernel has no close_range; then
// a reader of syscall.ForkLock waits. The program is another process, since one that stands
// still cannot release what it waits for.
func TestF11HeldExecve(t *testing.T) {
	for _, mode := range []string{"", "no close_range"} {
		t.Run(mode, func(t *testing.T) {
			path, g := gated(t)
			g.Hold(2)
			cmd := part("held", "PROGRAM="+path, "MODE="+mode, "GOMAXPROCS=1")
			cmd.Stderr = os.Stderr
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			watch := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
			defer watch.Stop()
			var held []*heldexec.Execution
			for range 2 {
				select {
				case e := <-g.Held():
					held = append(held, e)
				case <-impatient(t).Done():
					t.Fatal("the second fork does not come to its execve while the first is held")
				}
			}
			fmt.Fprintln(in, "held")
			lines := bufio.NewReader(out)
			if line, err := lines.ReadString('\n'); line != "went on\n" {
				t.Errorf("while the executions were held: %q, %v", line, err)
			}
			for _, e := range held {
				e.Release()
			}
			if line, err := lines.ReadString('\n'); line != "done\n" {
				t.Errorf("after they were released: %q, %v", line, err)
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// playHeld is the program of TestF11HeldExecve. It answers on its standard output.
func playHeld() {
	if os.Getenv("MODE") != "" {
		closesRange = func() bool { return false }
	}
	o, err := NewOwner(quiet())
	check(err)
	ctx := context.Background()
	victim, err := o.Start(exec.Command("sleep", "3600"))
	check(err)
	r, w, err := os.Pipe()
	check(err)
	starts := make(chan *Process, 2)
	for range cap(starts) {
		go func() {
			p, err := o.Start(exec.Command(os.Getenv("PROGRAM")))
			check(err)
			starts <- p
		}()
	}
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	check(err)

	other, err := o.Start(exec.Command("sh", "-c", "exit 7"))
	check(err)
	exit, err := other.Wait(ctx)
	check(err)
	check(victim.Signal(unix.SIGKILL))
	end, err := victim.Wait(ctx)
	check(err)
	<-time.After(time.Millisecond)
	runtime.GC()
	locked := make(chan struct{})
	go func() {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		close(locked)
	}()
	check(w.Close())
	if closesRange() {
		<-locked
		_, err = io.ReadAll(r)
		check(err)
	}
	if exit.Status != 7 || end.Status != 137 || len(starts) > 0 {
		check(fmt.Errorf("statuses %d and %d, %d executed", exit.Status, end.Status, len(starts)))
	}
	fmt.Println("went on")
	for range cap(starts) {
		p := <-starts
		exit, err = p.Wait(ctx)
		check(err)
		if exit.Status != 0 {
			check(fmt.Errorf("status %d", exit.Status))
		}
	}
	<-locked
	check(o.Close())
	fmt.Println("done")
}

// A start whose execve takes too long is ended with its context, and with the Owner; the program does not run.
func TestF11HeldExecveIsEnded(t *testing.T) {
	stop, err := heldexec.Watchdog(2 * patience)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	path, g := gated(t)
	o := owner(t, kernel{})
	for _, how := range []string{"context", "Close"} {
		g.Hold(1)
		ctx, cancel := context.WithCancelCause(context.Background())
		type started struct {
			*Process
			error
		}
		result := make(chan started, 1)
		go func() {
			p, err := o.StartContext(ctx, exec.Command(path))
			result <- started{p, err}
		}()
		e := <-g.Held()
		if how == "context" {
			cancel(errors.New("enough"))
		} else {
			go o.Close()
		}
		s := <-result
		if s.error != nil {
			t.Fatal(how, s.error)
		}
		if s.Pid() != e.Pid {
			t.Errorf("%s: pid %d, but %d was held", how, s.Pid(), e.Pid)
		}
		if how == "context" {
			if exit, err := s.Wait(impatient(t)); err != nil || exit.Status != 137 {
				t.Errorf("%+v, %v", exit, err)
			}
		} else {
			_ = retry(func() error { _, err := unix.Wait4(e.Pid, nil, 0, nil); return err })
		}
		e.Release()
		cancel(nil)
	}
}

// What a child is like does not depend on the way in which it was forked.
func TestF11ForkIsLikeGos(t *testing.T) {
	if !canVfork {
		t.Skip("this build forks as syscall.StartProcess does")
	}
	r, w := pipe(t)
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	const script = `cut -d" " -f5,6 /proc/$$/stat; pwd; echo "$0 $*"; env | grep -v -e ^_= -e ^PWD=; ulimit -n; ` +
		`while read -r line; do case $line in Sig[BI]*|Uid*|Gid*|Groups*|NSpid*|Cap*) echo "$line";; esac; done </proc/$$/status; ` +
		`for fd in $(seq 0 $1); do echo "$fd $(readlink /proc/$$/fd/$fd)"; done`
	for name, attr := range map[string]*syscall.ProcAttr{
		"plain":  {Sys: &syscall.SysProcAttr{}, Files: []uintptr{0, w.Fd(), 2}},
		"group":  {Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGTERM}, Dir: "/proc", Files: []uintptr{0, w.Fd(), 2, w.Fd(), 0, 1}},
		"sorted": {Sys: &syscall.SysProcAttr{Setsid: true}, Env: []string{"A=1", "A=2", "PATH=/bin:/usr/bin"}, Files: []uintptr{2, w.Fd(), 0, r.Fd()}},
		"user": {Sys: &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Credential: &syscall.Credential{Uid: 12345, Gid: 54321, Groups: []uint32{7, 8}}},
			Files: []uintptr{0, w.Fd(), 2}},
		"no groups": {Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Gid: 5}}, Files: []uintptr{0, w.Fd(), 2}},
		"pid namespace": {Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL},
			Files: []uintptr{0, w.Fd(), 2}},
	} {
		t.Run(name, func(t *testing.T) {
			argv := []string{"sh", "-c", script, "zero", fmt.Sprint(len(attr.Files) - 1), "two"}
			said := func(fork func(string, []string, *syscall.ProcAttr) (int, error)) string {
				fd := -1
				with, sys := *attr, *attr.Sys
				sys.PidFD, with.Sys = &fd, &sys
				if with.Env == nil {
					with.Env = []string{"PATH=" + os.Getenv("PATH")}
				}
				pid, err := fork(shell, argv, &with)
				if err != nil {
					t.Fatal(err)
				}
				if err := unix.PidfdSendSignal(fd, 0, nil, 0); err != nil {
					t.Error("the pidfd:", err)
				}
				unix.Close(fd)
				var status unix.WaitStatus
				_ = retry(func() error { _, err := unix.Wait4(pid, &status, 0, nil); return err })
				if status != 0 {
					t.Errorf("status %#x", status)
				}
				buf := make([]byte, 1<<16)
				n, err := r.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				return strings.ReplaceAll(string(buf[:n]), fmt.Sprint(pid), "SELF")
			}
			want := said(func(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
				pid, _, err := syscall.StartProcess(path, argv, attr)
				return pid, err
			})
			got := said(func(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
				if !vforkable(attr.Sys) {
					t.Error("it is left to Go's fork")
				}
				return forkExec(path, argv, attr, newFlight())
			})
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
