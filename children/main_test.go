package children

// What the tests share: a test binary that plays the runtime, the tracer and the container's init; one Owner at a time;
// and the look at the real processes afterwards.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// soak makes the long tests as long as an operator is patient.
var soak = os.Getenv("LARK_SOAK") != ""

// patience bounds every wait of a test that must come to an end, on however slow a machine: some start thousands of
// processes meanwhile. A test that waits in vain because of a planted fault has noticed it soon.
var patience = map[bool]time.Duration{false: 5 * time.Minute, true: time.Second}[os.Getenv(plantedEnv) != ""]

// plantedEnv names the planted fault that is switched on.
const plantedEnv = "LARK_PLANTED"

// roleEnv names the part that the test binary plays when it runs itself.
const roleEnv = "CHILDREN_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		play(role)
		return
	}
	goleak.VerifyTestMain(m)
}

// play runs the part and exits.
func play(role string) {
	parts := map[string]func(){"spawn": playRuntime, "crowd": playCrowd, "tracer": playTracer, "reuse": playReuse, "drop": playDrop, "held": playHeld, "limit": playLimit}
	os.Unsetenv(roleEnv)
	parts[role]()
	os.Exit(0)
}

// part makes a command that plays a part of this binary's.
func part(role string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append([]string{roleEnv + "=" + role, "PATH=" + os.Getenv("PATH"), plantedEnv + "=" + os.Getenv(plantedEnv)}, env...)
	return cmd
}

// call is what the fake runtime is told to do: make a process like `runc exec --detach --pid-file`, in a namespace or
// not, and exit.
type call struct {
	Argv    []string
	New     bool   // in a new pid namespace
	Join    string // in the one at this path
	Setsid  bool
	UID     uint32
	PidFile string
	Hang    bool // after the fork, before the pid file is written
}

// command makes the call of the fake runtime; the pids it has forked are printed.
func (c call) command(t testing.TB) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return part("spawn", "CALL="+string(text))
}

// playRuntime is the fake runtime.
func playRuntime() {
	var c call
	check(json.Unmarshal([]byte(os.Getenv("CALL")), &c))
	runtime.LockOSThread()
	if c.Join != "" {
		fd, err := unix.Open(c.Join, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		check(err)
		check(unix.Setns(fd, unix.CLONE_NEWPID))
	}
	attr := &syscall.ProcAttr{Files: []uintptr{0, 2, 2}, Sys: &syscall.SysProcAttr{Setsid: c.Setsid}}
	if c.UID != 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: c.UID, Gid: c.UID}
	}
	if c.New {
		attr.Sys.Cloneflags = unix.CLONE_NEWPID
	}
	path, err := exec.LookPath(c.Argv[0])
	check(err)
	pid, err := syscall.ForkExec(path, c.Argv, attr)
	check(err)
	for c.Hang {
		time.Sleep(time.Hour)
	}
	if c.PidFile != "" {
		check(os.WriteFile(c.PidFile+".tmp", []byte(strconv.Itoa(pid)), 0o600))
		check(os.Rename(c.PidFile+".tmp", c.PidFile))
	}
	fmt.Println(pid)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake:", err)
		os.Exit(125)
	}
}

// owner makes an Owner for the time of one test, at whose end no child may be left.
func owner(t testing.TB, sys system) *Owner {
	t.Helper()
	before := descriptors(t)
	o, err := newOwner(quiet(), sys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, "every child is reaped", func() string {
			pids, err := childrenOf(kernel{}, "self")
			if err != nil || len(pids) > 0 {
				return fmt.Sprint("left: ", describe(pids), err)
			}
			return ""
		})
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		if after := descriptors(t); after > before+2 { // the poller's own, made once
			t.Errorf("%d descriptors open, %d before", after, before)
		}
	})
	return o
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func descriptors(t testing.TB) int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// describe says what processes are, for messages.
func describe(pids []int) string {
	var b strings.Builder
	for i, pid := range pids {
		if i == 5 {
			fmt.Fprintf(&b, "... %d in all", len(pids))
			break
		}
		st, _ := statOf(kernel{}, pid)
		cmdline, _ := os.ReadFile(procPath(pid, "/cmdline"))
		fmt.Fprintf(&b, "%d %c %q; ", pid, st.state, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))
	}
	return b.String()
}

// eventually looks at the world, which sends no event for this, until wrong says nothing.
func eventually(t testing.TB, what string, wrong func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		said := wrong()
		if said == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: not after %v: %s", what, patience, said)
			return
		}
		<-time.After(2 * time.Millisecond)
	}
}

func impatient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// pipe makes a pipe that is closed when the test is over.
func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// start starts cmd with its standard output in a pipe. output gives what was written, when everybody has closed it.
func start(o *Owner, cmd *exec.Cmd) (p *Process, output func() []byte, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd.Stdout = w
	p, err = o.Start(cmd)
	w.Close()
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	var text []byte
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.Close()
		text, _ = io.ReadAll(r)
	}()
	return p, func() []byte { <-done; return text }, nil
}

// run runs a call to its end and gives the numbers it has printed.
func run(t testing.TB, o *Owner, cmd *exec.Cmd) []int {
	t.Helper()
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	p, out, err := start(o, cmd)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait(impatient(t))
	if err != nil || exit.Status != 0 {
		t.Fatalf("%v: %+v, %v", cmd.Args, exit, err)
	}
	pids, err := parsePids(out(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

// crowd is a runtime that makes n children, does not wait for them, and prints their pids: they come to us when it exits,
// most of them dead. The i-th ends with status i modulo 251.
func crowd(n int) *exec.Cmd { return part("crowd", "CROWD="+strconv.Itoa(n)) }

func playCrowd() {
	n, err := strconv.Atoi(os.Getenv("CROWD"))
	check(err)
	token, _ := strconv.Atoi(os.Getenv("TOKEN")) // 0 if there is none
	var out bytes.Buffer
	for i := range n {
		// A bare fork, whose child does nothing but exit: ten times as fast as one that executes a program.
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno == unix.EAGAIN {
			break // out of pids
		}
		if errno != 0 {
			check(errno)
		}
		if pid == 0 {
			for {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr((token+i)%251), 0, 0)
			}
		}
		fmt.Fprintln(&out, pid)
	}
	os.Stdout.Write(out.Bytes())
}

// claimed runs a call in a window and claims what it has made.
func claimed(t testing.TB, o *Owner, ns *PIDNamespace, c call) *Child {
	t.Helper()
	w := o.Begin(ns)
	defer w.Close()
	pids := run(t, o, c.command(t))
	child, err := w.Claim(pids[0])
	if err != nil {
		t.Fatal(err)
	}
	// A test that fails before it ends the child leaves no process behind.
	t.Cleanup(func() { _ = child.Signal(unix.SIGKILL) })
	return child
}

// end kills a child and waits for it.
func end(t testing.TB, c *Child) {
	t.Helper()
	if err := c.Signal(unix.SIGKILL); err != nil {
		t.Errorf("kill %d: %v", c.Pid(), err)
	}
	exit, err := c.Wait(impatient(t))
	if err != nil || exit.Status != 137 {
		t.Errorf("killed %d: %+v, %v", c.Pid(), exit, err)
	}
}

// zombies counts our dead children.
func zombies(t testing.TB) int {
	pids, err := childrenOf(kernel{}, "self")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, pid := range pids {
		if st, err := statOf(kernel{}, pid); err == nil && st.dead() {
			n++
		}
	}
	return n
}

// alive lists the processes whose command line has the marker.
func alive(t testing.TB, marker string) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && bytes.Contains(text, []byte(marker)) {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}
