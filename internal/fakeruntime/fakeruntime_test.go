package fakeruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main()
	// As a shim is: what the runtime leaves becomes our child.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// caller calls one installed runtime, as a shim does.
type caller struct {
	t      *testing.T
	binary string
	ctl    *Control
	bundle string
	id     string
}

// box is a container that is to run args, in its own pid namespace or in ours.
func box(t *testing.T, p Profile, private bool, args ...string) *caller {
	t.Helper()
	binary, ctl := Install(t, p)
	c := &caller{t: t, binary: binary, ctl: ctl, bundle: t.TempDir(), id: "c1"}
	namespaces := `{"type":"mount"}`
	if private {
		if os.Geteuid() != 0 {
			t.Skip("a pid namespace needs root")
		}
		namespaces += `,{"type":"pid"}`
	}
	quoted, err := json.Marshal(args)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(c.bundle, "config.json"), fmt.Appendf(nil,
		`{"ociVersion":"1.0.2","process":{"args":%s,"env":["PATH=/usr/bin:/bin","MARK=yes"],"cwd":"/"},"linux":{"namespaces":[%s],"cgroupsPath":"/lark-fake-%d"}}`,
		quoted, namespaces, os.Getpid()), 0o600))
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *caller) pidFile() string { return filepath.Join(c.bundle, "init.pid") }
func (c *caller) logFile() string { return filepath.Join(c.bundle, "log.json") }

func (c *caller) command(args ...string) *exec.Cmd {
	cmd := exec.Command(c.binary, append([]string{"--root", c.ctl.Root(), "--log", c.logFile(), "--log-format", "json"}, args...)...)
	cmd.Dir = c.bundle
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// run gives stdout and stderr in one, or the error of a call that failed.
func (c *caller) run(args ...string) (string, error) {
	// A file and not a pipe: init inherits it, and a pipe would not end before init.
	out, err := os.CreateTemp(c.bundle, "output")
	must(c.t, err)
	defer out.Close()
	cmd := c.command(args...)
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	b, readErr := os.ReadFile(out.Name())
	must(c.t, readErr)
	return string(b), err
}

func (c *caller) ok(args ...string) string {
	c.t.Helper()
	out, err := c.run(args...)
	if err != nil {
		c.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return out
}

func (c *caller) create() []string {
	return []string{"create", "--bundle", c.bundle, "--pid-file", c.pidFile(), c.id}
}

func (c *caller) execArgs(n int, args ...string) []string {
	quoted, err := json.Marshal(args)
	must(c.t, err)
	file := filepath.Join(c.bundle, fmt.Sprintf("process%d.json", n))
	must(c.t, os.WriteFile(file, fmt.Appendf(nil, `{"args":%s,"env":["PATH=/usr/bin:/bin"],"cwd":"/"}`, quoted), 0o600))
	return []string{"exec", "--process", file, "--detach", "--pid-file", filepath.Join(c.bundle, fmt.Sprintf("exec%d.pid", n)), c.id}
}

func (c *caller) pid(file string) int {
	c.t.Helper()
	b, err := os.ReadFile(file)
	must(c.t, err)
	pid, err := strconv.Atoi(string(b))
	must(c.t, err)
	return pid
}

// reap waits for a child of ours that the runtime made.
func (c *caller) reap(pid int) syscall.WaitStatus {
	c.t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	must(c.t, err)
	defer unix.Close(fd)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds())); n == 0 {
		c.t.Fatalf("pid %d does not die: %v", pid, err)
	}
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			c.t.Fatalf("pid %d is not our child: %v", pid, err)
		}
		return ws
	}
}

func (c *caller) status() string {
	c.t.Helper()
	var s struct{ Status string }
	must(c.t, json.Unmarshal([]byte(c.ok("state", c.id)), &s))
	return s.Status
}

// A whole life, in our pid namespace and in one of its own.
func TestFaithful(t *testing.T) {
	for _, private := range []bool{false, true} {
		t.Run(fmt.Sprint("private=", private), func(t *testing.T) {
			c := box(t, Profile{}, private, "sh", "-c", "echo started $MARK; trap 'exit 7' TERM; while :; do sleep 0.01; done")
			out, err := os.Create(filepath.Join(c.bundle, "out"))
			must(t, err)
			cmd := c.command(c.create()...)
			cmd.Stdout = out
			must(t, cmd.Run())
			pid := c.pid(c.pidFile())
			if f, err := statOf(pid); err != nil || f[1] != strconv.Itoa(os.Getpid()) {
				t.Errorf("init's parent: %v %v", f, err)
			}
			if s := c.status(); s != "created" {
				t.Errorf("status %s", s)
			}
			ours, err := os.Readlink("/proc/self/ns/pid")
			must(t, err)
			if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil || (theirs != ours) != private {
				t.Errorf("pid namespace %s, ours %s: %v", theirs, ours, err)
			}
			c.ok("start", c.id)
			if s := c.status(); s != "running" {
				t.Errorf("status %s", s)
			}
			must(t, awaitChange(c.bundle, patience, func() (bool, error) {
				b, err := os.ReadFile(out.Name())
				return string(b) == "started yes\n", err
			}))
			c.ok(c.execArgs(1, "sleep", "1000")...)
			sleeper := c.pid(filepath.Join(c.bundle, "exec1.pid"))
			if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", sleeper)); err != nil || (theirs != ours) != private {
				t.Errorf("exec's pid namespace %s, ours %s: %v", theirs, ours, err)
			}
			c.ok(c.execArgs(2, "sh", "-c", "exit 3")...)
			if ws := c.reap(c.pid(filepath.Join(c.bundle, "exec2.pid"))); ws.ExitStatus() != 3 {
				t.Errorf("exec exits with %v", ws)
			}
			var pids []int
			must(t, json.Unmarshal([]byte(c.ok("ps", "--format", "json", c.id)), &pids))
			if !slices.Equal(pids, []int{pid, sleeper}) || !slices.Equal(c.ctl.Processes(t), pids) {
				t.Errorf("ps %v, processes %v, want %d and %d", pids, c.ctl.Processes(t), pid, sleeper)
			}
			c.ok("pause", c.id)
			if s := c.status(); s != "paused" {
				t.Errorf("status %s", s)
			}
			c.ok("resume", c.id)
			cmd = c.command("update", "--resources", "-", c.id)
			cmd.Stdin = strings.NewReader(`{"memory":{}}`)
			must(t, cmd.Run())
			if _, err := c.run("delete", c.id); err == nil {
				t.Error("a running container was deleted")
			}
			c.ok("kill", c.id, "15")
			if private {
				// The kernel kills the exec with init, and init is not reapable before it.
				if ws := c.reap(sleeper); ws.Signal() != unix.SIGKILL {
					t.Errorf("exec ends with %v", ws)
				}
			}
			if ws := c.reap(pid); ws.ExitStatus() != 7 {
				t.Errorf("init exits with %v", ws)
			}
			if s := c.status(); s != "stopped" {
				t.Errorf("status %s", s)
			}
			if _, err := c.run("kill", c.id, "9"); err == nil {
				t.Error("a stopped container was killed")
			}
			if _, err := c.run(c.execArgs(3, "true")...); err == nil {
				t.Error("exec in a stopped container")
			}
			c.ok("delete", c.id)
			if !private {
				c.reap(sleeper)
			}
			if out, err := c.run("state", c.id); err == nil || !strings.Contains(out, "does not exist") {
				t.Errorf("state after delete: %v %s", err, out)
			}
			c.ok("delete", "--force", c.id)
			if left := c.ctl.Processes(t); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	c := box(t, Profile{}, false, "no-such-program")
	for _, args := range [][]string{c.create(), {"start", "x"}, {"nonsense"}, {"delete", "x"}, {}, {"create", "--bundle"}} {
		must(t, os.RemoveAll(c.logFile()))
		out, err := c.run(args...)
		var log struct{ Level, Msg string }
		b, _ := os.ReadFile(c.logFile())
		if err == nil || json.Unmarshal(b, &log) != nil && len(args) > 1 || !strings.Contains(out, log.Msg) {
			t.Errorf("%q: %v, said %q, logged %q", args, err, out, b)
		}
	}
	if out, err := c.run(c.create()...); err == nil || !strings.Contains(out, `exec: "no-such-program": executable file not found in $PATH`) {
		t.Errorf("%v %s", err, out)
	}
	if v := c.ok("--version"); !strings.HasPrefix(v, "fake version") {
		t.Error(v)
	}
	if f := c.ok("features"); !json.Valid([]byte(f)) || !strings.Contains(f, "rro") {
		t.Error(f)
	}
}

func TestKillCreatedAndDeleteCreated(t *testing.T) {
	c := box(t, Profile{}, true, "sleep", "1000")
	c.ok(c.create()...)
	pid := c.pid(c.pidFile())
	if _, err := c.run(c.create()...); err == nil {
		t.Error("created twice")
	}
	c.ok("delete", c.id)
	if ws := c.reap(pid); ws.Signal() != unix.SIGKILL {
		t.Errorf("%v", ws)
	}
	c.ok(c.create()...)
	pid = c.pid(c.pidFile())
	c.ok("kill", "--all", c.id, "KILL")
	c.reap(pid)
	if out, err := c.run("start", c.id); err == nil {
		t.Errorf("a dead container was started: %s", out)
	}
}

// What a shim hands to its runtime is noted: arguments, directory, environment, umask, and each descriptor.
func TestJournal(t *testing.T) {
	c := box(t, Profile{}, false, "true")
	cmd := c.command("features")
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = []string{"A=b"}
	must(t, cmd.Run())
	w.Close()
	e := c.ctl.Reached(t, "features:begin", 1)
	for fd, what := range Inherited() {
		if fd > 3 && e.FDs[fd] == what {
			delete(e.FDs, fd) // whoever runs the test has given it to us
		}
	}
	if len(e.FDs) != 4 || !strings.HasPrefix(e.FDs[3], "pipe:") || e.Dir != c.bundle || !slices.Contains(e.Env, "A=b") || e.Args[len(e.Args)-1] != "features" || e.Umask < 0 {
		t.Errorf("%+v", e)
	}
	if n := c.ctl.Calls(t, Features); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// A call waits until the test lets it go: a slow start with a late answer.
func TestGate(t *testing.T) {
	c := box(t, On(After(Start), Wait("answer")), false, "sleep", "1000")
	c.ok(c.create()...)
	cmd := c.command("start", c.id)
	must(t, cmd.Start())
	c.ctl.Reached(t, After(Start), 1)
	if s := c.status(); s != "running" {
		t.Errorf("status %s", s)
	}
	c.ctl.Open(t, "answer")
	must(t, cmd.Wait())
}

func itoa(n int) string { return strconv.Itoa(n) }

// Init dies inside create, and inside start, with either answer (#9103, invariants 9 and 10).
func TestInitDiesInside(t *testing.T) {
	for _, x := range []struct {
		p              Profile
		create, starts bool
	}{
		{On(Forked(Create), KillInit(9)), true, false},
		{On(Written(Create), KillInit(9)), true, false},
		{On(After(Start), KillInit(9)), true, true},
		{On(Before(Start), KillInit(9), Exit(0)), true, true},
		{On(Before(Start), KillInit(9)), true, false},
		{On(After(Start), KillInit(9), Fail("start failed")), true, false},
	} {
		c := box(t, x.p, false, "sleep", "1000")
		if out, err := c.run(c.create()...); (err == nil) != x.create {
			t.Errorf("%+v: create: %v %s", x.p, err, out)
		}
		if out, err := c.run("start", c.id); (err == nil) != x.starts {
			t.Errorf("%+v: start: %v %s", x.p, err, out)
		}
		if ws := c.reap(c.pid(c.pidFile())); ws.Signal() != unix.SIGKILL {
			t.Errorf("%+v: %v", x.p, ws)
		}
	}
}

// An exec that has forked and then fails leaves its process, as W9 has it.
func TestExecForkedThenFails(t *testing.T) {
	c := box(t, On(Forked(Exec), Fail("after the fork")), false, "sleep", "1000")
	c.ok(c.create()...)
	if out, err := c.run(c.execArgs(1, "sleep", "1000")...); err == nil || !strings.Contains(out, "after the fork") {
		t.Errorf("%v %s", err, out)
	}
	if n := len(c.ctl.Processes(t)); n != 2 {
		t.Errorf("%d processes", n)
	}
	if _, err := os.Stat(filepath.Join(c.bundle, "exec1.pid")); !os.IsNotExist(err) {
		t.Errorf("pid file: %v", err)
	}
	c.ctl.Become(t, On(Forked(Exec), KillProcess(15)))
	c.ok(c.execArgs(2, "sleep", "1000")...)
	if ws := c.reap(c.pid(filepath.Join(c.bundle, "exec2.pid"))); ws.Signal() != unix.SIGTERM {
		t.Errorf("%v", ws)
	}
}

func TestStepsForOneContainerAndOnce(t *testing.T) {
	c := box(t, On(Before(State), Exit(9).First("once"), Exit(8).For("other")), false, "true")
	codes := []int{}
	for _, id := range []string{"c1", "c1", "other"} {
		_, err := c.run("state", id)
		var e *exec.ExitError
		if errors.As(err, &e) {
			codes = append(codes, e.ExitCode())
		}
	}
	if !slices.Equal(codes, []int{9, 1, 8}) {
		t.Errorf("%v", codes)
	}
	if _, err := box(t, On(Before(State), Step{Do: "dance"}), false, "true").run("state", "x"); err == nil {
		t.Error("a step that does not exist")
	}
}

func TestCheckpointAndRestore(t *testing.T) {
	c := box(t, Profile{}, true, "sleep", "1000")
	image := filepath.Join(c.bundle, "image")
	restore := []string{"restore", "--image-path", image, "--detach", "--pid-file", c.pidFile(), "-no-subreaper", "--bundle", c.bundle, c.id}
	if out, err := c.run(restore...); err == nil || !strings.Contains(out, "criu") {
		t.Errorf("restored nothing: %v %s", err, out)
	}
	c.ok(c.create()...)
	c.ok("start", c.id)
	first := c.pid(c.pidFile())
	c.ok("checkpoint", "--leave-running", "--image-path", image, c.id)
	if s := c.status(); s != "running" {
		t.Errorf("status %s", s)
	}
	c.ok("checkpoint", "--image-path", image, c.id)
	if ws := c.reap(first); ws.Signal() != unix.SIGKILL {
		t.Errorf("%v", ws)
	}
	c.ok("delete", c.id)
	c.ok(restore...)
	second := c.pid(c.pidFile())
	if f, err := statOf(second); err != nil || f[1] != strconv.Itoa(os.Getpid()) {
		t.Errorf("parent of the restored init: %v %v", f, err)
	}
	if s := c.status(); s != "running" {
		t.Errorf("status %s", s)
	}
	c.ok("delete", "--force", c.id)
	c.reap(second)
}

func TestCgroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	c := box(t, Profile{Cgroup: true}, false, "sleep", "1000")
	c.ok(c.create()...)
	c.ok(c.execArgs(1, "sleep", "1000")...)
	name := fmt.Sprintf("/lark-fake-%d", os.Getpid())
	for _, file := range []string{"init.pid", "exec1.pid"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.pid(filepath.Join(c.bundle, file))))
		if err != nil || !strings.Contains(string(b), ":"+name+"\n") {
			t.Errorf("%s: %s %v", file, b, err)
		}
	}
	c.ok("delete", "--force", c.id)
	c.reap(c.pid(c.pidFile()))
	c.reap(c.pid(filepath.Join(c.bundle, "exec1.pid")))
	removeCgroup(name) // it was not empty while there were zombies
	for _, dir := range cgroupDirs(name) {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
