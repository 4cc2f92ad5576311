package oci

// fake_test.go: the test binary plays an OCI runtime when FAKE_RUNTIME is set.
// The variable says how it misbehaves.

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/calibrate"
)

const fakeEnv = "FAKE_RUNTIME"

func TestMain(m *testing.M) {
	if mode := os.Getenv(fakeEnv); mode != "" {
		os.Exit(fakeRuntime(mode, os.Args))
	}
	hang = calibrate.Stretch(hang)
	os.Exit(m.Run())
}

// hang is the deadline of a call that hangs: time enough for the fake runtime to
// start and to say that it hangs.
var hang = 300 * time.Millisecond

// flags finds the value of a flag on a runtime's command line.
func flagOf(args []string, name string) string {
	for i, a := range args[:len(args)-1] {
		if a == name {
			return args[i+1]
		}
	}
	return ""
}

func fakeRuntime(mode string, args []string) int {
	signal.Ignore(syscall.SIGTERM)
	name, rest, _ := strings.Cut(mode, ":")
	switch name {
	case "child": // plays the container's process
		forever()
	case "probe": // "no" for what state is asked for, "stopped", or silence
		return fakeProbe(rest, args)
	case "pid":
		os.WriteFile(flagOf(args, "--pid-file"), []byte(rest), 0o600)
		return 0
	case "self": // its own pid, which is dead and reaped when it is claimed
		os.WriteFile(flagOf(args, "--pid-file"), fmt.Append(nil, os.Getpid()), 0o600)
		return 0
	case "ok":
		os.WriteFile(flagOf(args, "--pid-file"), fmt.Append(nil, fakeChild()), 0o600)
		return 0
	case "forkbadpid":
		os.WriteFile("forked", fmt.Append(nil, fakeInit()), 0o600)
		os.WriteFile(flagOf(args, "--pid-file"), []byte("-1"), 0o600)
		return 0
	case "failafter", "dieafter", "hangafter": // having forked and named a process of the host's pid namespace
		pid := fmt.Append(nil, fakeChild())
		os.WriteFile("forked", pid, 0o600)
		os.WriteFile(flagOf(args, "--pid-file"), pid, 0o600)
		switch name {
		case "failafter":
			return 1
		case "dieafter":
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		select {}
	case "hang":
		os.WriteFile("hung", fmt.Append(nil, fakeChild()), 0o600)
		forever()
	case "crash":
		os.WriteFile("crashed", fmt.Append(nil, fakeInit()), 0o600)
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		forever()
	case "log":
		line := fmt.Sprintf(`{"level":"warning","msg":"first"}`+"\n"+`{"level":"error","msg":%q}`+"\n", rest)
		f, _ := os.OpenFile(flagOf(args, "--log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		f.WriteString(line)
		fmt.Fprintln(os.Stderr, rest)
		return 1
	case "stderr":
		fmt.Fprintln(os.Stderr, rest)
		return 1
	case "silent":
		return 3
	case "flood":
		line := []byte(strings.Repeat("x", 1023) + "\n")
		for range 32 << 10 { // 32 MiB
			os.Stderr.Write(line)
		}
		fmt.Fprintln(os.Stderr, "the end")
		return 1
	case "stdout":
		fmt.Print(rest)
		return 0
	case "endless":
		line := []byte(strings.Repeat("[", 1<<20))
		for range 10 {
			os.Stdout.Write(line)
		}
		return 0
	case "holder": // leaves somebody who holds stderr
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), fakeEnv+"=child")
		c.Stderr = os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		c.Start()
		os.WriteFile("held", fmt.Append(nil, c.Process.Pid), 0o600)
		fmt.Fprintln(os.Stderr, "held")
		return 1
	case "describe":
		return fakeDescribe(args)
	}
	return 99
}

func fakeProbe(state string, args []string) int {
	isState := strings.Contains(strings.Join(args, " "), " state ")
	switch {
	case !isState:
		return 1
	case state == "no":
		return 1
	case state == "hang":
		forever()
	}
	fmt.Printf(`{"id":"x","status":%q}`, state)
	return 0
}

// fakeChild forks a process in a session of its own, as runc's init is.
func fakeChild() int { return fakeFork(0) }

// fakeInit forks one that is the init of a pid namespace besides.
func fakeInit() int { return fakeFork(syscall.CLONE_NEWPID) }

func fakeFork(flags uintptr) int {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), fakeEnv+"=child")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: flags}
	if err := c.Start(); err != nil {
		panic(err)
	}
	return c.Process.Pid
}

// fakeDescribe writes down what the runtime was given.
func fakeDescribe(args []string) int {
	var b strings.Builder
	fmt.Fprintln(&b, "args", strings.Join(args[1:], " "))
	wd, _ := os.Getwd()
	fmt.Fprintln(&b, "cwd", wd)
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		// What was inherited is not close-on-exec; what Go opened for itself is.
		n, _ := strconv.Atoi(fd.Name())
		flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
		if target, _ := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fmt.Fprintln(&b, "fd", fd.Name(), target)
		}
	}
	for _, kv := range os.Environ() {
		fmt.Fprintln(&b, "env", kv)
	}
	fmt.Fprintln(&b, "pgid", syscall.Getpgrp() == os.Getpid())
	os.WriteFile("description", []byte(b.String()), 0o600)
	os.WriteFile(flagOf(args, "--pid-file"), fmt.Append(nil, fakeChild()), 0o600)
	return 0
}

// bench is a runtime under test.
type bench struct {
	*Runtime
	owner *children.Owner
	dir   string
}

// newBench makes a Runtime that calls the fake in the given mode.
func newBench(t *testing.T, mode string, deadlines Deadlines) *bench {
	t.Helper()
	owner := ownerOf(t)
	t.Setenv(fakeEnv, mode)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else each fake takes a second to exit under -race
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "root"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{
		Binary: self, Root: filepath.Join(dir, "root"), Dir: dir, Owner: owner,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Deadlines: deadlines,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{Runtime: r, owner: owner, dir: dir}
}

// owners has the owner of each test: there must be but one at a time, or the sweep
// of one takes the children of the other for orphans.
var owners sync.Map

func ownerOf(t *testing.T) *children.Owner {
	t.Helper()
	if o, ok := owners.Load(t); ok {
		return o.(*children.Owner)
	}
	owner, err := children.NewOwner(slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	owners.Store(t, owner)
	t.Cleanup(func() {
		owners.Delete(t)
		owner.Close()
	})
	return owner
}

func (b *bench) pidFile() string { return filepath.Join(b.dir, "init.pid") }

func (b *bench) create(t *testing.T) (*children.Child, error) {
	t.Helper()
	return b.Create(t.Context(), "x", CreateCall{PidFile: b.pidFile(), Namespace: b.owner.OwnNamespace()})
}

// short is a table of deadlines that end soon.
func short(d time.Duration) Deadlines {
	all := DefaultDeadlines()
	for _, row := range deadlineTable {
		*row.field(&all) = d
	}
	return all
}

// gone waits until a process is dead and reaped.
func gone(t *testing.T, pidFile string) {
	t.Helper()
	data, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if _, err := os.Stat("/proc/" + string(data)); os.IsNotExist(err) {
			return
		}
		time.Sleep(5 * time.Millisecond) // a process of others: nothing to wait on
	}
	t.Errorf("process %s is still there", data)
}

// forever is how the fake runtime hangs. The Go runtime takes a select without
// cases for a deadlock where cgo is off.
func forever() {
	for {
		time.Sleep(time.Hour)
	}
}
