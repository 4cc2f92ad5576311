package docker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/larkshim/lark/e2e/suite"
)

func TestShimIsTheOneUnderTest(t *testing.T) {
	id := background(t, "sleep 600")
	shim := shimOf(t, id)
	remove(t, id)
	deadline := time.Now().Add(commandLimit)
	for {
		if ours, err := suite.IsSubject(shim); err != nil || !ours {
			break // gone: its /proc entry cannot be read any more
		}
		if time.Now().After(deadline) {
			t.Fatal("the shim outlives its container")
		}
		time.Sleep(poll)
	}
}

func TestRun(t *testing.T) {
	for _, status := range []int{0, 1, 7, 127, 255} {
		r := try(t, append(append([]string{"run", "--rm"}, flags...), image, "sh", "-c", fmt.Sprintf("echo out; echo err >&2; exit %d", status))...)
		if r.status != status || r.stdout != "out\n" || r.stderr != "err\n" {
			t.Errorf("exit %d: got %+v", status, r)
		}
	}
}

func TestRunStdin(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	args := append([]string{"-H", "unix://" + socket, "run", "--rm", "-i"}, flags...)
	command := exec.CommandContext(ctx, client, append(args, image, "wc", "-c")...)
	command.Stdin = strings.NewReader(strings.Repeat("x", 3<<20))
	out, err := command.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != strconv.Itoa(3<<20) {
		t.Errorf("wc -c says %q, %v", out, err)
	}
}

func TestRunTerminal(t *testing.T) {
	out := docker(t, append(append([]string{"run", "--rm", "-t"}, flags...), image, "sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && echo terminal")...)
	if out != "/dev/pts/0\r\nterminal\r" {
		t.Errorf("got %q", out)
	}
}

func TestRunFailsToStart(t *testing.T) {
	r := try(t, append(append([]string{"run", "--rm"}, flags...), image, "/no/such/program")...)
	// Docker makes 127 of the runtime's words; another wording gives 125.
	if r.status != 127 || !strings.Contains(r.stderr, "no such file or directory") {
		t.Errorf("got %+v", r)
	}
}

func TestExec(t *testing.T) {
	id := background(t, "sleep 600")
	shimOf(t, id)
	r := try(t, "exec", id, "sh", "-c", "echo out; echo err >&2; exit 9")
	if r.status != 9 || r.stdout != "out\n" || r.stderr != "err\n" {
		t.Errorf("got %+v", r)
	}
	if r := try(t, "exec", id, "/no/such/program"); r.status != 126 && r.status != 127 {
		t.Errorf("exec of a program that is not there: %+v", r)
	}
	if out := docker(t, "exec", "-w", "/etc", "-e", "X=y", "-u", "www-data", id, "sh", "-c", "echo $PWD $X $(id -u)"); out != "/etc y 33" {
		t.Errorf("directory, environment and user: %q", out)
	}
}

func TestExecManyAtOnce(t *testing.T) {
	const execs = 30
	id := background(t, "sleep 600")
	var wait sync.WaitGroup
	for i := range execs {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
			defer cancel()
			out, err := exec.CommandContext(ctx, client, "-H", "unix://"+socket, "exec", id, "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i)).CombinedOutput()
			status := -1
			if exit, ok := err.(*exec.ExitError); ok {
				status = exit.ExitCode()
			} else if err == nil {
				status = 0
			}
			if status != i || string(out) != strconv.Itoa(i)+"\n" {
				t.Errorf("exec %d: status %d, output %q, %v", i, status, out, err)
			}
		})
	}
	wait.Wait()
}

func TestExecTerminal(t *testing.T) {
	id := background(t, "sleep 600")
	out := docker(t, "exec", "-t", id, "sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && echo terminal")
	if out != "/dev/pts/0\r\nterminal\r" && out != "/dev/pts/1\r\nterminal\r" {
		t.Errorf("got %q", out)
	}
	if r := try(t, "exec", "-t", id, "sh", "-c", "exit 11"); r.status != 11 {
		t.Errorf("status %d, want 11", r.status)
	}
}

func TestLogs(t *testing.T) {
	id := background(t, "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo end >&2; printf unterminated; exit 3")
	until(t, id, "exited", func(s state) bool { return s.State.Status == "exited" })
	r := try(t, "logs", id)
	lines := strings.Split(r.stdout, "\n")
	if len(lines) != 20001 || lines[20000] != "unterminated" {
		t.Fatalf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
	for i, line := range lines[:20000] {
		if line != "line "+strconv.Itoa(i) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	if r.stderr != "end\n" {
		t.Errorf("standard error is %q", r.stderr)
	}
}

func TestLogsFollow(t *testing.T) {
	id := background(t, "for i in 1 2 3; do echo $i; sleep 1; done")
	if out := docker(t, "logs", "-f", id); out != "1\n2\n3" {
		t.Errorf("got %q", out)
	}
}

func TestStop(t *testing.T) {
	t.Run("handler", func(t *testing.T) {
		id := background(t, "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done")
		ready(t, id)
		docker(t, "stop", "-t", "30", id)
		if s := inspect(t, id); s.State.ExitCode != 5 || s.State.Running {
			t.Errorf("after stop: %+v", s)
		}
		if out := docker(t, "logs", id); out != "ready\nbye" {
			t.Errorf("logs %q", out)
		}
	})
	t.Run("grace period", func(t *testing.T) {
		id := background(t, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
		ready(t, id)
		began := time.Now()
		docker(t, "stop", "-t", "2", id)
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("killed after %v, before the grace period was over", took)
		}
		if s := inspect(t, id); s.State.ExitCode != 137 {
			t.Errorf("after stop: %+v", s)
		}
	})
}

// ready waits until the container's script has printed something.
func ready(t *testing.T, id string) {
	t.Helper()
	deadline := time.Now().Add(commandLimit)
	for docker(t, "logs", id) == "" {
		if time.Now().After(deadline) {
			t.Fatal("the container prints nothing")
		}
		time.Sleep(poll)
	}
}

func TestKill(t *testing.T) {
	id := background(t, "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.1; done")
	ready(t, id)
	docker(t, "kill", "-s", "USR1", id)
	deadline := time.Now().Add(commandLimit)
	for docker(t, "logs", id) != "ready\nusr1" {
		if time.Now().After(deadline) {
			t.Fatalf("logs %q", docker(t, "logs", id))
		}
		time.Sleep(poll)
	}
	docker(t, "kill", id)
	s := until(t, id, "exited", func(s state) bool { return !s.State.Running })
	if s.State.ExitCode != 137 {
		t.Errorf("after kill: %+v", s)
	}
	if r := try(t, "kill", id); r.status == 0 || !strings.Contains(r.stderr, "is not running") {
		t.Errorf("a second kill: %+v", r)
	}
}

func TestPause(t *testing.T) {
	id := background(t, "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done")
	ready(t, id)
	docker(t, "pause", id)
	if s := inspect(t, id); !s.State.Paused {
		t.Errorf("after pause: %+v", s)
	}
	before := docker(t, "logs", id)
	time.Sleep(500 * time.Millisecond) // ten lines' time, in which nothing may come
	if after := docker(t, "logs", id); after != before {
		t.Error("it prints while it is paused")
	}
	docker(t, "unpause", id)
	if s := inspect(t, id); s.State.Paused || !s.State.Running {
		t.Errorf("after unpause: %+v", s)
	}
	deadline := time.Now().Add(commandLimit)
	for docker(t, "logs", id) == before {
		if time.Now().After(deadline) {
			t.Fatal("it prints nothing after unpause")
		}
		time.Sleep(poll)
	}
}

func TestStats(t *testing.T) {
	id := background(t, "sleep 600 & sleep 600 & wait", "-m", "64m")
	var stats struct{ MemUsage, MemPerc, CPUPerc, PIDs, BlockIO string }
	if err := json.Unmarshal([]byte(docker(t, "stats", "--no-stream", "--format", "{{json .}}", id)), &stats); err != nil {
		t.Fatal(err)
	}
	if stats.PIDs != "3" || !strings.Contains(stats.MemUsage, "/ 64MiB") || strings.HasPrefix(stats.MemUsage, "0B") {
		t.Errorf("got %+v", stats)
	}
	if top := strings.Split(docker(t, "top", id), "\n"); len(top) != 4 {
		t.Errorf("docker top lists %q, want a heading and three processes", top)
	}
	docker(t, "update", "-m", "128m", "--memory-swap", "256m", id)
	if out := docker(t, "stats", "--no-stream", "--format", "{{.MemUsage}}", id); !strings.Contains(out, "/ 128MiB") {
		t.Errorf("after update: %q", out)
	}
}

func TestOOMKilled(t *testing.T) {
	id := background(t, "tail /dev/zero", "-m", "16m", "--memory-swap", "16m")
	s := until(t, id, "exited", func(s state) bool { return !s.State.Running })
	if !s.State.OOMKilled || s.State.ExitCode != 137 {
		t.Errorf("got %+v", s)
	}
}

func TestRestartPolicy(t *testing.T) {
	t.Run("on-failure", func(t *testing.T) {
		id := background(t, "exit 4", "--restart", "on-failure:3")
		s := until(t, id, "given up", func(s state) bool { return s.State.Status == "exited" && s.RestartCount == 3 })
		if s.State.ExitCode != 4 {
			t.Errorf("got %+v", s)
		}
	})
	t.Run("always", func(t *testing.T) {
		id := background(t, "sleep 600", "--restart", "always")
		first := inspect(t, id).State.Pid
		if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		// Docker calls a container running, without a pid, while it restarts it.
		until(t, id, "restarted", func(s state) bool {
			return s.RestartCount == 1 && s.State.Running && s.State.Pid != 0 && s.State.Pid != first
		})
		shimOf(t, id)
	})
	t.Run("docker restart", func(t *testing.T) {
		id := background(t, "trap 'exit 0' TERM; while :; do sleep 0.1; done")
		first := inspect(t, id).State.Pid
		docker(t, "restart", id)
		if s := inspect(t, id); !s.State.Running || s.State.Pid == first {
			t.Errorf("got %+v", s)
		}
	})
}

// TestEvents: what Docker tells its users comes in the order in which it happened, once each.
func TestEvents(t *testing.T) {
	since := strconv.FormatInt(time.Now().Unix(), 10)
	id := docker(t, append(append([]string{"create"}, flags...), image, "sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.1; done")...)
	t.Cleanup(func() { remove(t, id) })
	docker(t, "start", id)
	for range 3 {
		docker(t, "exec", id, "true")
	}
	docker(t, "pause", id)
	docker(t, "unpause", id)
	docker(t, "stop", "-t", "30", id)
	docker(t, "rm", id)
	out := docker(t, "events", "--since", since, "--until", strconv.FormatInt(time.Now().Unix()+1, 10), "--filter", "container="+id, "--format", "{{json .}}")
	var got []string
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		var e struct {
			Action string
			Actor  struct{ Attributes map[string]string }
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		action, _, _ := strings.Cut(e.Action, ":") // exec_create: true
		if code, ok := e.Actor.Attributes["exitCode"]; ok {
			action += "=" + code
		}
		got = append(got, action)
	}
	execOnce := []string{"exec_create", "exec_start", "exec_die=0"}
	want := slices.Concat([]string{"create", "start"}, execOnce, execOnce, execOnce,
		[]string{"pause", "unpause", "kill", "die=6", "stop", "destroy"})
	if !slices.Equal(got, want) {
		t.Errorf("events\n%v, want\n%v", got, want)
	}
}

// TestLiveRestore: dockerd and its containerd go and come back while containers run; what happened meanwhile is known after.
func TestLiveRestore(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			lasting := background(t, "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done")
			trigger := t.TempDir() // seen in the container: tells it to exit while dockerd is away
			ending := background(t, "while ! [ -e /trigger/now ]; do sleep 0.1; done; exit 21", "-v", trigger+":/trigger")
			ready(t, lasting)
			before, shim := inspect(t, lasting).State, shimOf(t, lasting)
			endingPid := inspect(t, ending).State.Pid

			if err := the.stop(signal); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(trigger+"/now", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			gone(t, endingPid)
			if err := the.start(); err != nil {
				t.Fatal(err)
			}

			after := inspect(t, lasting).State
			if !after.Running || after.Pid != before.Pid || !after.StartedAt.Equal(before.StartedAt) {
				t.Errorf("before %+v, after %+v", before, after)
			}
			if now := shimOf(t, lasting); now != shim {
				t.Errorf("shim %d after %d", now, shim)
			}
			if r := try(t, "exec", lasting, "sh", "-c", "exit 8"); r.status != 8 {
				t.Errorf("exec after the restart: %+v", r)
			}
			logged := docker(t, "logs", lasting)
			deadline := time.Now().Add(commandLimit)
			for docker(t, "logs", lasting) == logged {
				if time.Now().After(deadline) {
					t.Fatal("no output arrives after the restart")
				}
				time.Sleep(poll)
			}
			s := until(t, ending, "exited", func(s state) bool { return !s.State.Running })
			if s.State.ExitCode != 21 {
				t.Errorf("it exited with 21 while dockerd was away; now %+v", s)
			}
			docker(t, "stop", "-t", "1", lasting)
		})
	}
}

// gone waits until a process has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(commandLimit)
	for syscall.Kill(pid, 0) == nil {
		if time.Now().After(deadline) {
			t.Fatalf("process %d has not ended", pid)
		}
		time.Sleep(poll)
	}
}

// TestZNothingIsLeft runs last: when all containers are removed no shim, no mount and no cgroup of theirs is there.
func TestZNothingIsLeft(t *testing.T) {
	if ids := strings.Fields(docker(t, "ps", "-aq")); len(ids) > 0 {
		docker(t, append([]string{"rm", "-f"}, ids...)...)
	}
	deadline := time.Now().Add(commandLimit)
	for {
		left := leftovers(t)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
		}
		time.Sleep(poll)
	}
}

// leftovers names what of containers is still there.
func leftovers(t *testing.T) []string {
	t.Helper()
	shims, err := suite.Shims()
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, pid := range shims {
		left = append(left, fmt.Sprintf("shim %d", pid))
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/run/docker/containerd/daemon/") || strings.Contains(line, "/merged ") {
			left = append(left, "mount "+line)
		}
	}
	// Of one container: /sys/fs/cgroup/memory/docker/ID on v1, /sys/fs/cgroup/docker/ID on v2.
	for _, pattern := range []string{"/sys/fs/cgroup/docker/*/cgroup.procs", "/sys/fs/cgroup/*/docker/*/cgroup.procs", "/var/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	return left
}
