package fakeruntime

// rows_test.go: the faults of the catalogue that the runtime commits, by their rows.

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Row 32, for every command: it hangs, SIGTERM does not help, SIGKILL does; and what was forked before is there.
func TestRow32Hang(t *testing.T) {
	for _, at := range []Point{Before(Create), Forked(Create), Written(Create), Before(Start), After(Start), Before(Exec), Forked(Exec), Before(Kill), Before(Delete), Before(Ps), Before(State)} {
		t.Run(string(at), func(t *testing.T) {
			c := box(t, Profile{}, false, "sleep", "1000")
			command, _, _ := strings.Cut(string(at), ":")
			args := []string{command, c.id}
			if command == Create {
				args = c.create()
			} else {
				c.ok(c.create()...)
				if command == Exec {
					args = c.execArgs(1, "sleep", "1000")
				}
			}
			before := len(c.ctl.Processes(t))
			c.ctl.Become(t, On(at, Hang()))
			cmd := c.command(args...)
			must(t, cmd.Start())
			c.ctl.Reached(t, at, 1)
			forked := strings.HasSuffix(string(at), ":forked") || at == Written(Create)
			if got := len(c.ctl.Processes(t)); (got > before) != forked {
				t.Errorf("%d processes, %d before", got, before)
			}
			must(t, cmd.Process.Signal(unix.SIGTERM))
			must(t, cmd.Process.Kill())
			if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
				t.Errorf("it ended with %v", err)
			}
			_, err := os.Stat(c.pidFile())
			if written := command != Create || at == Written(Create); (err == nil) != written {
				t.Errorf("pid file: %v", err)
			}
		})
	}
}

// Row 33: dead by a signal after the fork, before or after the pid file.
func TestRow33Crash(t *testing.T) {
	for at, written := range map[Point]bool{Forked(Create): false, Written(Create): true} {
		c := box(t, On(at, Crash(9)), false, "sleep", "1000")
		cmd := c.command(c.create()...)
		err := cmd.Run()
		if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != unix.SIGKILL {
			t.Errorf("%s: %v", at, err)
		}
		if _, err := os.Stat(c.pidFile()); (err == nil) != written {
			t.Errorf("%s: pid file: %v", at, err)
		}
		if n := len(c.ctl.Processes(t)); n != 1 {
			t.Errorf("%s: %d processes are left", at, n)
		}
	}
}

// Row 31: every false pid file.
func TestRow31PidFile(t *testing.T) {
	for _, text := range []string{"-1", "0", "1", "abc", "", "4194305", " 7\n", "{parent}", "{runtime}", "{dead}"} {
		c := box(t, On(Forked(Create), PidFile(text)), false, "sleep", "1000")
		cmd := c.command(c.create()...)
		must(t, cmd.Run())
		b, err := os.ReadFile(c.pidFile())
		must(t, err)
		want := strings.NewReplacer("{parent}", itoa(os.Getpid()), "{runtime}", itoa(cmd.Process.Pid)).Replace(text)
		if text == "{dead}" {
			if err := unix.Kill(c.pid(c.pidFile()), 0); !errors.Is(err, unix.ESRCH) {
				t.Errorf("the dead one: %v", err)
			}
		} else if string(b) != want {
			t.Errorf("%q: %q", text, b)
		}
	}
	c := box(t, On(Forked(Create), NoPidFile()), false, "sleep", "1000")
	c.ok(c.create()...)
	if _, err := os.Stat(c.pidFile()); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// Row 30: the ways of failing, and row 34: the ways of talking.
func TestRow30And34Output(t *testing.T) {
	for _, x := range []struct {
		steps       []Step
		out, logged string
		code        int
	}{
		{[]Step{Fail("so so")}, "so so\n", "so so", 1},
		{[]Step{FailPlain("plain")}, "plain\n", "", 1},
		{[]Step{Exit(4)}, "", "", 4},
		{[]Step{Stdout("{garbage"), Exit(0)}, "{garbage", "", 0},
		{[]Step{FloodLog(4096), Exit(1)}, "", "xxxx", 1},
	} {
		c := box(t, On(Before(State), x.steps...), false, "true")
		out, err := c.run("state", c.id)
		var e *exec.ExitError
		code := 0
		if errors.As(err, &e) {
			code = e.ExitCode()
		}
		log, _ := os.ReadFile(c.logFile())
		if out != x.out || code != x.code || (x.logged == "") != (len(log) == 0) || !strings.Contains(string(log), x.logged) {
			t.Errorf("%+v: said %q, code %d, logged %.100q", x.steps, out, code, log)
		}
		if x.steps[0].Do == "floodlog" && (len(log) < 4000 || !json.Valid(log[:bytes.IndexByte(log, '\n')])) {
			t.Errorf("%d bytes of log", len(log))
		}
	}
}

func TestRow30Flood(t *testing.T) {
	const size = 1 << 24
	c := box(t, On(Before(Ps), FloodStderr(size), Fail("at last")), false, "true")
	cmd := c.command("ps", c.id)
	stderr, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	n, err := io.Copy(io.Discard, stderr)
	if err != nil || n < size {
		t.Errorf("%d bytes, %v", n, err)
	}
	if cmd.Wait() == nil {
		t.Error("no failure")
	}
	// Nobody reads: it ends, by SIGPIPE.
	cmd = c.command("ps", c.id)
	stderr, err = cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	stderr.Close()
	if cmd.Wait() == nil {
		t.Error("no failure")
	}
}

// Row 35: what comes over the console socket.
func TestRow35Console(t *testing.T) {
	for how, want := range map[ConsoleFault][]int{ // descriptors in each message
		"": {1}, ConsoleNever: {}, ConsoleTwice: {1, 1}, ConsoleNoFD: {0}, ConsoleTwoFDs: {2}, ConsoleFile: {1}, ConsoleNotATTY: {1}, ConsoleSilent: {0},
	} {
		t.Run(string("console "+how), func(t *testing.T) {
			c := box(t, On(Before(Create), Console(how)), false, "sh", "-c", "test -t 0 && echo a tty; sleep 1000")
			dir, err := os.MkdirTemp("", "lark")
			must(t, err)
			defer os.RemoveAll(dir)
			socket := filepath.Join(dir, "s")
			l, err := net.Listen("unix", socket)
			must(t, err)
			args := c.create()
			c.ok(append([]string{args[0], "--console-socket", socket}, args[1:]...)...)
			var got []int
			var console *os.File
			for queued(t, l.(*net.UnixListener)) { // whoever has connected is in the queue
				conn, err := l.Accept()
				must(t, err)
				fds := receive(t, conn.(*net.UnixConn))
				got = append(got, len(fds))
				for _, f := range fds {
					if console == nil && how == "" {
						console = f
						continue
					}
					f.Close()
				}
				conn.Close()
			}
			l.Close()
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if how == "" {
				defer console.Close()
				c.ok("start", c.id)
				if line, err := bufio.NewReader(console).ReadString('\n'); line != "a tty\r\n" {
					t.Errorf("%q %v", line, err)
				}
			}
		})
	}
}

func receive(t *testing.T, conn *net.UnixConn) []*os.File {
	t.Helper()
	data, oob := make([]byte, 64), make([]byte, 256)
	_, n, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	must(t, err)
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		must(t, err)
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files
}

// queued reports whether a connection waits to be accepted.
func queued(t *testing.T, l *net.UnixListener) (yes bool) {
	t.Helper()
	raw, err := l.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		must(t, err)
		yes = n == 1
	}))
	return yes
}

// Row 36: somebody keeps the runtime's stdio, until the test ends.
func TestRow36Grandchild(t *testing.T) {
	var pid int
	t.Run("leaves", func(t *testing.T) {
		c := box(t, On(Before(Version), Grandchild()), false, "true")
		cmd := c.command("--version")
		r, w, err := os.Pipe()
		must(t, err)
		defer r.Close()
		cmd.Stdout = w
		must(t, cmd.Run())
		w.Close()
		text := make([]byte, 4)
		if _, err := io.ReadFull(r, text); err != nil || string(text) != "fake" {
			t.Errorf("%q %v", text, err)
		}
		must(t, r.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		if b, err := io.ReadAll(r); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q %v: the pipe has an end", b, err)
		}
		lines, err := c.ctl.read()
		must(t, err)
		for _, l := range lines {
			if l.At == "grandchild" {
				pid = l.Started[0].Pid
			}
		}
		if len(c.ctl.Processes(t)) != 0 {
			t.Error("the grandchild counts as a container's process")
		}
	})
	if ws := (&caller{t: t}).reap(pid); ws.Signal() != unix.SIGKILL {
		t.Errorf("%v", ws)
	}
}

// Row 37: delete fails though the container is gone; row 38: kill says yes and does nothing.
func TestRow37And38(t *testing.T) {
	c := box(t, On(Before(Delete), Forget(), Fail("container does not exist")).And(Before(Kill), Exit(0)), false, "sleep", "1000")
	c.ok(c.create()...)
	pid := c.pid(c.pidFile())
	c.ok("kill", c.id, "9")
	if err := unix.Kill(pid, 0); err != nil {
		t.Errorf("kill: %v", err)
	}
	if out, err := c.run("delete", c.id); err == nil || !strings.Contains(out, "does not exist") {
		t.Errorf("delete: %v %s", err, out)
	}
	if _, err := c.run("state", c.id); err == nil {
		t.Error("the runtime still knows the container")
	}
}

// Row 29: paths that are no runtime.
func TestRow29NoRuntime(t *testing.T) {
	for path, want := range map[string]error{
		Missing(t): unix.ENOENT, NotExecutable(t): unix.EACCES, Directory(t): unix.EACCES, WrongArch(t): unix.ENOEXEC,
	} {
		if err := exec.Command(path).Run(); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}
