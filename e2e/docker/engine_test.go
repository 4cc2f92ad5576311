package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/larkshim/lark/e2e/registry"
	"github.com/larkshim/lark/e2e/suite"
)

const (
	dockerd = "/usr/sbin/dockerd"
	// client is the package's own: another docker in PATH may be too new for dockerd 20.10.
	client = "/usr/bin/docker"
	socket = "/run/docker.sock"
	image  = "lark-test/busybox:latest"

	// commandLimit: nothing the tests ask takes longer, on a loaded machine, unless it hangs.
	commandLimit = 3 * time.Minute
	// startLimit is for dockerd and its containerd to come up.
	startLimit = 2 * time.Minute
	// stopLimit is for dockerd to end; it gives containerd 15 s of them.
	stopLimit = 2 * time.Minute
	poll      = 50 * time.Millisecond
)

// the is the one engine that all tests share, started by TestMain.
var the *engine

func TestMain(m *testing.M) {
	os.Exit(suite.Main(testMain{m}, suite.Needs{Programs: []string{dockerd, client, "runc", "containerd", "busybox"}}))
}

// testMain starts the engine before the tests, inside the sandbox.
type testMain struct{ *testing.M }

func (m testMain) Run() int {
	the = &engine{}
	if err := the.setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "docker:", err)
		the.dump()
		return 1
	}
	status := m.M.Run()
	if err := the.stop(syscall.SIGTERM); err != nil {
		fmt.Fprintln(os.Stderr, "docker:", err)
		status = 1
	}
	if status != 0 {
		the.dump()
	}
	return status
}

// engine is dockerd.
type engine struct {
	process *exec.Cmd
	ended   chan error
}

const engineLog = "/run/dockerd.log"

// setUp starts dockerd for the first time and makes the image.
func (e *engine) setUp() error {
	if err := e.start(); err != nil {
		return err
	}
	busybox, err := registry.OpenBusybox(registry.BusyboxPath)
	if err != nil {
		return err
	}
	root, err := busybox.RootFS("docker")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	command := exec.CommandContext(ctx, client, "-H", "unix://"+socket, "import", "-", image)
	command.Stdin = bytes.NewReader(root)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("docker import: %w\n%s", err, out)
	}
	return nil
}

// start starts dockerd and returns when it answers.
func (e *engine) start() error {
	log, err := os.OpenFile(engineLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	// The sandbox has a /run and a /var/lib of its own, so the usual places are private.
	e.process = exec.Command(dockerd, "--host", "unix://"+socket, "--pidfile", "/run/docker.pid",
		"--data-root", "/var/lib/docker", "--exec-root", "/run/docker", "--storage-driver", "overlay2",
		"--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none",
		"--live-restore", "--log-level", "debug")
	e.process.Stdout, e.process.Stderr = log, log
	if err := e.process.Start(); err != nil {
		return err
	}
	e.ended = make(chan error, 1)
	go func(p *exec.Cmd, ended chan<- error) { ended <- p.Wait() }(e.process, e.ended)

	deadline := time.Now().Add(startLimit)
	for {
		err := exec.Command(client, "-H", "unix://"+socket, "version").Run()
		if err == nil {
			return nil
		}
		select {
		case ended := <-e.ended:
			return fmt.Errorf("dockerd ended: %w", ended)
		case <-time.After(poll):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("dockerd does not answer: %w", err)
		}
	}
}

// stop ends dockerd by a signal and waits until it has ended. After SIGKILL its containerd lives on.
func (e *engine) stop(signal syscall.Signal) error {
	if err := e.process.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case err := <-e.ended:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return err
		}
		return nil
	case <-time.After(stopLimit):
		return errors.Join(fmt.Errorf("dockerd has not ended %v after %v", stopLimit, signal), e.process.Process.Kill())
	}
}

// dump shows the end of dockerd's log, which has containerd's and the shims' in it.
func (e *engine) dump() {
	log, err := os.ReadFile(engineLog)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no log of dockerd:", err)
		return
	}
	const most = 40 << 10
	fmt.Fprintf(os.Stderr, "the end of dockerd's log:\n%s\n", log[max(0, len(log)-most):])
}

// result of a docker command.
type result struct {
	stdout, stderr string
	status         int
}

// try runs docker with args and returns whatever comes of it.
func try(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, client, append([]string{"-H", "unix://" + socket}, args...)...)
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || (err != nil && !errors.As(err, &exit)) {
		t.Fatalf("docker %q: %v: %s%s", args, errors.Join(err, ctx.Err()), &stdout, &stderr)
	}
	return result{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
}

// docker runs docker with args, which must succeed, and returns what it prints, without the last line's end.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	r := try(t, args...)
	if r.status != 0 {
		t.Fatalf("docker %q: status %d: %s%s", args, r.status, r.stdout, r.stderr)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// flags every container of the tests has: there is no network to attach to but the sandbox's own.
var flags = []string{"--network", "none", "--label", "lark-test"}

// background starts a container that runs script in a shell, and removes it after the test.
func background(t *testing.T, script string, more ...string) (id string) {
	t.Helper()
	args := append([]string{"run", "-d"}, flags...)
	args = append(append(args, more...), image, "sh", "-c", script)
	id = docker(t, args...)
	t.Cleanup(func() { remove(t, id) })
	return id
}

// remove removes a container that may be gone already. It works when t's context has ended, as it has in a Cleanup.
func remove(t *testing.T, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	if out, err := exec.CommandContext(ctx, client, "-H", "unix://"+socket, "rm", "-f", id).CombinedOutput(); err != nil && !strings.Contains(string(out), "No such container") {
		t.Errorf("docker rm -f %s: %v: %s", id, err, out)
	}
}

// state is what `docker inspect` says of a container.
type state struct {
	State struct {
		Status     string
		Running    bool
		Paused     bool
		OOMKilled  bool
		Pid        int
		ExitCode   int
		StartedAt  time.Time
		FinishedAt time.Time
	}
	RestartCount int
}

func inspect(t *testing.T, id string) state {
	t.Helper()
	var states []state
	if err := json.Unmarshal([]byte(docker(t, "inspect", id)), &states); err != nil || len(states) != 1 {
		t.Fatalf("docker inspect %s: %d answers, %v", id, len(states), err)
	}
	return states[0]
}

// until polls a container until ok, for at most commandLimit. Docker has events, but the tests also ask after a restart of dockerd.
func until(t *testing.T, id, what string, ok func(state) bool) state {
	t.Helper()
	deadline := time.Now().Add(commandLimit)
	for {
		s := inspect(t, id)
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("container %s: not %s after %v: %+v", id, what, commandLimit, s)
		}
		time.Sleep(poll)
	}
}

// shimOf returns the shim of a running container, after it has made sure that it is the one under test.
func shimOf(t *testing.T, id string) int {
	t.Helper()
	shim, err := suite.Parent(inspect(t, id).State.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := suite.IsSubject(shim)
	if err != nil {
		t.Fatal(err)
	}
	if !ours {
		exe, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(shim), "exe"))
		t.Fatalf("the shim of container %s is %s, not the one under test", id, exe)
	}
	return shim
}
