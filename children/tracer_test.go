package children

// A dead child that a tracer holds: ready by pidfd, and nothing to reap.

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// counting counts the questions for an exit.
type counting struct {
	system
	waits atomic.Int64
}

func (c *counting) waitid(idType, id int, peek bool) (exited, bool, error) {
	if idType == unix.P_PIDFD {
		c.waits.Add(1)
	}
	return c.system.waitid(idType, id, peek)
}

// playTracer seizes a process, and holds it dead until it is told to wait for it, or to go away.
func playTracer() {
	runtime.LockOSThread()
	pid, err := strconv.Atoi(os.Getenv("TRACEE"))
	check(err)
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0)
	if errno != 0 {
		check(errno)
	}
	fmt.Println("seized")
	order, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if order == "wait\n" {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		check(err)
		fmt.Println("waited")
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
}

// tracer starts one that holds pid; order tells it what to do.
func tracer(t *testing.T, o *Owner, pid int) (*Process, io.WriteCloser) {
	t.Helper()
	cmd := part("tracer", "TRACEE="+strconv.Itoa(pid))
	cmd.Stderr = os.Stderr
	out, said := pipe(t)
	orders, order := pipe(t)
	cmd.Stdin, cmd.Stdout = orders, said
	p, err := o.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	orders.Close()
	var word string
	if _, err := fmt.Fscan(out, &word); err != nil || word != "seized" {
		t.Fatal("tracer:", word, err)
	}
	return p, order
}

// cpu is what this process has used.
func cpu(t *testing.T) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A dead child in the hands of a tracer is neither an error nor a reason to spin, be it waited for or claimed then; and
// its exit is seen when the tracer lets go, in each of the ways in which it can.
func TestTracerHoldsTheDead(t *testing.T) {
	const hold = 300 * time.Millisecond
	for _, way := range []string{"tracer waits", "tracer goes away", "tracer is killed"} {
		t.Run(way, func(t *testing.T) {
			count := &counting{system: kernel{}}
			o := owner(t, count)
			waited := claimed(t, o, o.OwnNamespace(), call{Argv: []string{"sleep", "3600"}})
			p, order := tracer(t, o, waited.Pid())
			result := make(chan Exit, 1)
			go func() {
				exit, err := waited.Wait(impatient(t))
				if err != nil {
					t.Error(err)
				}
				result <- exit
			}()
			if err := waited.Signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is dead", func() string {
				if st, err := statOf(kernel{}, waited.Pid()); err != nil || !st.dead() {
					return fmt.Sprintf("%c %v", st.state, err)
				}
				return ""
			})
			before, used := count.waits.Load(), cpu(t)
			select {
			case exit := <-result:
				t.Fatalf("%+v, though a tracer holds it", exit)
			case <-time.After(hold): // what is measured is what happens in this time
			}
			asked, used := count.waits.Load()-before, cpu(t)-used
			if asked > 5 || used > hold/10 {
				t.Errorf("asked %d times, used %v in %v: it spins", asked, used, hold)
			}
			released := letGo(t, way, p, order)
			exit := <-result
			t.Logf("asked %d times and used %v in %v; exit seen %v after the release", asked, used, hold, exit.At.Sub(released))
			if exit.Status != 128+uint32(unix.SIGKILL) {
				t.Errorf("%+v", exit)
			}
			order.Close()
			if _, err := p.Wait(impatient(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// letGo makes the tracer release the dead child.
func letGo(t *testing.T, way string, p *Process, order io.WriteCloser) time.Time {
	t.Helper()
	now := time.Now()
	var err error
	switch way {
	case "tracer waits":
		_, err = io.WriteString(order, "wait\n")
	case "tracer goes away":
		err = order.Close()
	case "tracer is killed":
		err = p.Signal(unix.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// One that is held dead when it is claimed is claimed all the same.
func TestClaimOfTheDeadThatATracerHolds(t *testing.T) {
	o := owner(t, kernel{})
	w := o.Begin(o.OwnNamespace())
	defer w.Close()
	pid := run(t, o, call{Argv: []string{"sleep", "3600"}}.command(t))[0]
	p, order := tracer(t, o, pid)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	child, err := w.Claim(pid)
	if err != nil {
		t.Fatal(err)
	}
	order.Close()
	if exit, err := child.Wait(impatient(t)); err != nil || exit.Status != 137 {
		t.Errorf("%+v, %v", exit, err)
	}
	if _, err := p.Wait(impatient(t)); err != nil {
		t.Error(err)
	}
}

// A call that a tracer holds dead is waited for in the same way.
func TestTracerHoldsACall(t *testing.T) {
	o := owner(t, kernel{})
	victim, err := o.Start(exec.Command("sleep", "3600"))
	if err != nil {
		t.Fatal(err)
	}
	p, order := tracer(t, o, victim.Pid())
	if err := victim.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	result := make(chan Exit, 1)
	go func() {
		exit, err := victim.Wait(impatient(t))
		if err != nil {
			t.Error(err)
		}
		result <- exit
	}()
	select {
	case exit := <-result:
		t.Errorf("%+v, though a tracer holds it", exit)
	case <-time.After(100 * time.Millisecond): // nothing is to happen
	}
	order.Close()
	if exit := <-result; exit.Status != 137 {
		t.Errorf("%+v", exit)
	}
	if _, err := p.Wait(impatient(t)); err != nil {
		t.Error(err)
	}
}
