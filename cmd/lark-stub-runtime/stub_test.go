package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// build builds the stub, entered as the kernel does or as Go does.
func build(t *testing.T, ldflags string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stub")
	cmd := exec.Command("go", "build", "-ldflags", ldflags, "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// stub is a built stub with its directories.
type stub struct {
	t         *testing.T
	path, dir string
}

func (s stub) run(want int, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(s.path, append([]string{"--root", s.dir + "/root/ns", "--log", s.dir + "/log.json", "--log-format", "json"}, args...)...)
	cmd.Dir = s.dir
	// A file and no pipe: what the stub forks keeps its outputs open.
	file, err := os.CreateTemp(s.dir, "out")
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	err = cmd.Run()
	out, readErr := os.ReadFile(file.Name())
	if readErr != nil || cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
		s.t.Fatalf("%q: %v, %q", args, err, out)
	}
	return string(out)
}

func (s stub) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s stub) pid(name string) int {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil || pid <= 1 {
		s.t.Fatalf("pid %q: %v", text, err)
	}
	return pid
}

// reap waits for a process that the stub has left to us; the test is a subreaper.
func reap(t *testing.T, pid int) unix.WaitStatus {
	t.Helper()
	var status unix.WaitStatus
	if got, err := unix.Wait4(pid, &status, 0, nil); err != nil || got != pid {
		t.Fatalf("wait for %d: %d, %v", pid, got, err)
	}
	return status
}

// TestLife takes a container with an exec through the stub, built in both ways.
func TestLife(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	for name, ldflags := range map[string]string{"bare": "-s -w -E main.entry", "plain": "-s -w"} {
		t.Run(name, func(t *testing.T) {
			s := stub{t: t, path: build(t, ldflags), dir: t.TempDir()}
			s.file("config.json", `{"process":{"args":["sleep","9"]},"linux":{"namespaces":[{"type":"pid"}]}}`)
			s.run(1, "state", "c")
			s.run(0, "create", "--bundle", s.dir, "--pid-file", s.dir+"/init.pid", "--no-pivot", "c")
			init := s.pid("init.pid")
			var state struct {
				ID, Status string
				Pid        int
			}
			if err := json.Unmarshal([]byte(s.run(0, "state", "c")), &state); err != nil || state.ID != "c" || state.Pid != init || state.Status != "running" {
				t.Errorf("state: %+v, %v", state, err)
			}
			s.run(0, "start", "c")
			s.execs(init)
			if got := s.run(0, "ps", "--format", "json", "c"); got != fmt.Sprintf("[%d]\n", init) {
				t.Errorf("ps: %q", got)
			}
			s.run(0, "kill", "c", "9")
			if st := reap(t, init); st.Signal() != unix.SIGKILL {
				t.Errorf("init ended with %v", st)
			}
			s.run(1, "exec", "--process", s.dir+"/true.json", "--detach", "--pid-file", s.dir+"/late.pid", "c")
			s.run(0, "delete", "c")
			s.run(1, "delete", "c")
			s.run(0, "delete", "--force", "c")
		})
	}
}

// execs runs an exec that ends, one that stays and is in init's pid namespace.
func (s stub) execs(init int) {
	s.t.Helper()
	ended := s.file("true.json", `{"args":["true"]}`)
	s.run(0, "exec", "--process", ended, "--detach", "--pid-file", s.dir+"/e1.pid", "c")
	if st := reap(s.t, s.pid("e1.pid")); st.ExitStatus() != 0 {
		s.t.Errorf("exec ended with %v", st)
	}
	stays := s.file("sleep.json", `{"args":["sleep"]}`)
	s.run(0, "exec", "--process", stays, "--detach", "--pid-file", s.dir+"/e2.pid", "c")
	pid := s.pid("e2.pid")
	mine, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if inits, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", init)); err != nil || err2 != nil || mine != inits {
		s.t.Errorf("exec in %s, init in %s: %v %v", mine, inits, err, err2)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		s.t.Error(err)
	}
	reap(s.t, pid)
}

// TestShortInit: the init of a container that runs `true` ends when it is started.
func TestShortInit(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	s := stub{t: t, path: build(t, "-E main.entry"), dir: t.TempDir()}
	s.file("config.json", `{"process":{"args":["true"]},"linux":{"namespaces":[{"type":"pid"}]}}`)
	s.run(0, "create", "--bundle", s.dir, "--pid-file", s.dir+"/init.pid", "c")
	s.run(0, "start", "c")
	reap(t, s.pid("init.pid"))
	s.run(0, "delete", "c")
}

// TestWriter: "lark-write" writes exactly what the bench expects.
func TestWriter(t *testing.T) {
	s := stub{t: t, path: build(t, "-E main.entry"), dir: t.TempDir()}
	s.file("config.json", `{"process":{"args":["lark-write"]}}`)
	cmd := exec.Command(s.path, "--root", s.dir+"/root", "create", "--bundle", s.dir, "--pid-file", s.dir+"/init.pid", "c")
	n := 0
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	for {
		m, err := out.Read(buf)
		n += m
		if err != nil || n > writeTotal {
			break
		}
		if n == writeTotal {
			break // init waits to be killed, and holds the pipe open
		}
	}
	if n != writeTotal {
		t.Errorf("%d bytes", n)
	}
	if err := exec.Command(s.path, "--root", s.dir+"/root", "delete", "--force", "c").Run(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
