package smoke

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	tasktypes "github.com/containerd/containerd/api/types/task"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/e2e/suite"
)

const (
	// callLimit: no step takes longer on a loaded machine, unless it hangs.
	callLimit = 60 * time.Second
	poll      = 20 * time.Millisecond
	sigKill   = uint32(syscall.SIGKILL)
	sigTerm   = uint32(syscall.SIGTERM)
)

// containerds are those that the shim claims to work with, by the versions they go by in the table.
var containerds = []struct{ version, binary string }{
	{"1.6", daemon.System()},
	{"1.7", filepath.Join(daemon.Built(daemon.Containerd17), "containerd")},
	{"2.4", filepath.Join(daemon.Built(daemon.Containerd24), "containerd")},
}

// steps are the rows of the table.
var steps = []struct {
	name string
	test func(*testing.T, *node)
}{
	{"run", run},
	{"exec", exec},
	{"terminal", terminal},
	{"kill", kill},
	{"delete", remove},
	{"restart of containerd with containers running", restart},
	{"exit while containerd is away", exitWhileAway},
}

var runtimes = []string{suite.LarkRuntime, suite.RuncRuntime}

// table collects what is printed in the end: step -> "version as runtime" -> passed.
var table = map[string]map[string]bool{}

func TestMain(m *testing.M) {
	os.Exit(suite.Main(testMain{m}, suite.Needs{
		Programs: []string{"runc", "busybox", "containerd"},
		Peers:    []string{"containerd-" + daemon.Containerd17, "containerd-" + daemon.Containerd24},
	}))
}

// testMain prints the table after the tests.
type testMain struct{ *testing.M }

func (m testMain) Run() int {
	status := m.M.Run()
	if len(table) == 0 {
		return status
	}
	fmt.Print("\n| |")
	for _, c := range containerds {
		fmt.Printf(" containerd %s |", daemon.VersionOf(c.binary))
	}
	fmt.Print("\n|---|" + strings.Repeat("---|", len(containerds)) + "\n")
	for _, step := range steps {
		fmt.Printf("| %s |", step.name)
		for _, c := range containerds {
			cell := "not run"
			if passed, ok := table[step.name][c.version]; ok {
				cell = map[bool]string{true: "yes", false: "NO"}[passed]
			}
			fmt.Printf(" %s |", cell)
		}
		fmt.Println()
	}
	fmt.Println()
	return status
}

// TestSmoke runs every step under every containerd, under both names of the shim. A cell of the table says yes when both do.
func TestSmoke(t *testing.T) {
	for _, c := range containerds {
		t.Run(c.version, func(t *testing.T) {
			if version := daemon.VersionOf(c.binary); !strings.HasPrefix(version, c.version+".") {
				t.Fatalf("%s is %q: install containerd %s, or name one with LARK_E2E_CONTAINERD", c.binary, version, c.version)
			}
			d, err := daemon.Start(t.Context(), daemon.Config{Binary: c.binary, ShimDir: suite.Bin()})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if t.Failed() {
					t.Logf("the end of containerd's log:\n%s", d.Log())
				}
				if err := d.Stop(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			}()
			for _, runtime := range runtimes {
				t.Run(runtime, func(t *testing.T) {
					for _, step := range steps {
						ran := false // t.Run calls a step that -run leaves out passed
						passed := t.Run(step.name, func(t *testing.T) {
							ran = true
							step.test(t, newNode(t, d, runtime))
						})
						if ran {
							record(step.name, c.version, passed)
						}
					}
					ctx, cancel := context.WithTimeout(t.Context(), callLimit)
					defer cancel()
					if left := d.NothingLeft(ctx); len(left) > 0 {
						t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
						record("delete", c.version, false)
					}
				})
			}
		})
	}
}

func record(step, version string, passed bool) {
	if table[step] == nil {
		table[step] = map[string]bool{}
	}
	before, ok := table[step][version]
	table[step][version] = passed && (before || !ok)
}

// node is a containerd, as a step sees it.
type node struct {
	*daemon.Client
	d       *daemon.Daemon
	runtime daemon.Runtime
	ctx     context.Context //nolint:containedctx // the step's own, for all its calls
	dir     string
}

func newNode(t *testing.T, d *daemon.Daemon, runtime string) *node {
	ctx, cancel := context.WithTimeout(t.Context(), callLimit)
	t.Cleanup(cancel)
	// A namespace for each runtime, so that what a failed step leaves is not in the other's way.
	client, err := d.Client(ctx, strings.ReplaceAll(runtime, ".", "-"))
	if err != nil {
		t.Fatal(err)
	}
	return &node{Client: client, d: d, runtime: d.Runc(runtime, ""), ctx: ctx, dir: t.TempDir()}
}

// container makes a container and its task. The test deletes both.
func (n *node) container(t *testing.T, id string, stdio daemon.Stdio, args ...string) {
	t.Helper()
	rootfs, err := n.d.Rootfs()
	if err != nil {
		t.Fatal(err)
	}
	spec := n.d.Spec(id, daemon.SpecOpts{Args: args, Terminal: stdio.Terminal, Mutate: func(s *specs.Spec) {
		// To be told something without a call: by a file that appears.
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "bind", Source: n.dir, Options: []string{"bind"}})
	}})
	if err := n.CreateContainer(n.ctx, id, n.runtime, spec); err != nil {
		t.Fatal(err)
	}
	pid, err := n.CreateTask(n.ctx, id, daemon.BindRootfs(rootfs), stdio)
	if err != nil {
		t.Fatal(err)
	}
	shim, err := suite.Parent(int(pid))
	if err != nil {
		t.Fatal(err)
	}
	if ours, err := suite.IsSubject(shim); err != nil || !ours {
		t.Fatalf("the shim of %s is not the one under test, %v", id, err)
	}
}

// start starts the container or an exec of it.
func (n *node) start(t *testing.T, id, exec string) uint32 {
	t.Helper()
	pid, err := n.Start(n.ctx, id, exec)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// wait waits for an exit and checks its status.
func (n *node) wait(t *testing.T, id, exec string, want uint32) {
	t.Helper()
	exit, err := n.Wait(n.ctx, id, exec)
	if err != nil {
		t.Fatal(err)
	}
	if exit.Status != want || exit.At.IsZero() {
		t.Errorf("%s %s: exit %+v, want status %d", id, exec, exit, want)
	}
}

// delete deletes a stopped task, with its container, and checks the status it is told.
func (n *node) delete(t *testing.T, id string, want uint32) {
	t.Helper()
	exit, err := n.Delete(n.ctx, id, "")
	if err != nil {
		t.Fatal(err)
	}
	if exit.Status != want {
		t.Errorf("%s: deleted with %+v, want status %d", id, exit, want)
	}
	if err := n.DeleteContainer(n.ctx, id); err != nil {
		t.Fatal(err)
	}
}

// status checks the state of a task.
func (n *node) status(t *testing.T, id string, want tasktypes.Status) {
	t.Helper()
	process, err := n.Status(n.ctx, id, "")
	if err != nil {
		t.Fatal(err)
	}
	if process.Status != want {
		t.Errorf("%s is %v, want %v", id, process.Status, want)
	}
}

// pipes are the FIFOs of a process and what comes out of them.
type pipes struct {
	daemon.Stdio
	stdout, stderr <-chan string
}

// pipes makes FIFOs and reads them to their end.
func (n *node) pipes(t *testing.T, name string, terminal bool) pipes {
	t.Helper()
	p := pipes{Stdio: daemon.Stdio{Terminal: terminal}}
	p.Stdout, p.stdout = n.fifo(t, name+".out")
	if !terminal {
		p.Stderr, p.stderr = n.fifo(t, name+".err")
	}
	return p
}

func (n *node) fifo(t *testing.T, name string) (string, <-chan string) {
	t.Helper()
	path := filepath.Join(n.dir, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	content := make(chan string, 1)
	go func() {
		// Blocks until the shim opens the other end; see fifo(7).
		file, err := os.Open(path)
		if err != nil {
			content <- err.Error()
			return
		}
		defer file.Close()
		all, err := io.ReadAll(file)
		if err != nil {
			all = append(all, err.Error()...)
		}
		content <- string(all)
	}()
	return path, content
}

// expect checks what came out of a FIFO.
func (n *node) expect(t *testing.T, what string, content <-chan string, want ...string) {
	t.Helper()
	select {
	case got := <-content:
		if !slices.Contains(want, got) {
			t.Errorf("%s is %q, want %q", what, got, want)
		}
	case <-n.ctx.Done():
		t.Errorf("%s does not end", what)
	}
}

func run(t *testing.T, n *node) {
	p := n.pipes(t, "run", false)
	n.container(t, "run", p.Stdio, "sh", "-c", "echo out; echo err >&2; exit 7")
	n.status(t, "run", tasktypes.Status_CREATED)
	n.start(t, "run", "")
	n.wait(t, "run", "", 7)
	n.expect(t, "stdout", p.stdout, "out\n")
	n.expect(t, "stderr", p.stderr, "err\n")
	n.status(t, "run", tasktypes.Status_STOPPED)
	n.delete(t, "run", 7)
}

func exec(t *testing.T, n *node) {
	n.container(t, "exec", daemon.Stdio{}, "sleep", "600")
	n.start(t, "exec", "")
	for i := range 5 {
		name := fmt.Sprintf("e%d", i)
		p := n.pipes(t, name, false)
		if err := n.Exec(n.ctx, "exec", name, daemon.Process("sh", "-c", fmt.Sprintf("echo out; echo err >&2; exit %d", i)), p.Stdio); err != nil {
			t.Fatal(err)
		}
		n.start(t, "exec", name)
		n.wait(t, "exec", name, uint32(i))
		n.expect(t, "stdout", p.stdout, "out\n")
		n.expect(t, "stderr", p.stderr, "err\n")
		if exit, err := n.Delete(n.ctx, "exec", name); err != nil || exit.Status != uint32(i) {
			t.Errorf("delete of exec %d: %+v, %v", i, exit, err)
		}
	}
	n.end(t, "exec")
}

// end kills a running container and deletes it.
func (n *node) end(t *testing.T, id string) {
	t.Helper()
	if err := n.Kill(n.ctx, id, "", sigKill, false); err != nil {
		t.Fatal(err)
	}
	n.wait(t, id, "", 128+sigKill)
	n.delete(t, id, 128+sigKill)
}

func terminal(t *testing.T, n *node) {
	const script = "test -t 0 && test -t 1 && test -t 2 && tty; exit 3"
	p := n.pipes(t, "tty", true)
	n.container(t, "tty", p.Stdio, "sh", "-c", script)
	n.start(t, "tty", "")
	n.wait(t, "tty", "", 3)
	n.expect(t, "the terminal's output", p.stdout, "/dev/pts/0\r\n")
	n.delete(t, "tty", 3)

	n.container(t, "execs-tty", daemon.Stdio{}, "sleep", "600")
	n.start(t, "execs-tty", "")
	p = n.pipes(t, "exec-tty", true)
	process := daemon.Process("sh", "-c", script)
	process.Terminal = true
	if err := n.Exec(n.ctx, "execs-tty", "e", process, p.Stdio); err != nil {
		t.Fatal(err)
	}
	n.start(t, "execs-tty", "e")
	n.wait(t, "execs-tty", "e", 3)
	n.expect(t, "the terminal's output", p.stdout, "/dev/pts/0\r\n", "/dev/pts/1\r\n")
	if _, err := n.Delete(n.ctx, "execs-tty", "e"); err != nil {
		t.Error(err)
	}
	n.end(t, "execs-tty")
}

func kill(t *testing.T, n *node) {
	n.container(t, "kill", daemon.Stdio{}, "sh", "-c", "trap 'exit 9' TERM; touch /tmp/ready; while :; do sleep 0.1; done")
	n.start(t, "kill", "")
	n.appears(t, "ready")
	if err := n.Kill(n.ctx, "kill", "", sigTerm, false); err != nil {
		t.Fatal(err)
	}
	n.wait(t, "kill", "", 9)
	if err := n.Kill(n.ctx, "kill", "", sigTerm, false); err == nil {
		t.Error("a process that has exited could be killed")
	}
	n.delete(t, "kill", 9)

	// One process of several, and then all.
	n.container(t, "kill-all", daemon.Stdio{}, "sleep", "600")
	n.start(t, "kill-all", "")
	if err := n.Exec(n.ctx, "kill-all", "e", daemon.Process("sleep", "600"), daemon.Stdio{}); err != nil {
		t.Fatal(err)
	}
	n.start(t, "kill-all", "e")
	if err := n.Kill(n.ctx, "kill-all", "e", sigTerm, false); err != nil {
		t.Fatal(err)
	}
	n.wait(t, "kill-all", "e", 128+sigTerm)
	n.status(t, "kill-all", tasktypes.Status_RUNNING)
	if err := n.Kill(n.ctx, "kill-all", "", sigKill, true); err != nil {
		t.Fatal(err)
	}
	n.wait(t, "kill-all", "", 128+sigKill)
	n.delete(t, "kill-all", 128+sigKill)
}

// appears waits for a file in the directory that the container sees as /tmp.
func (n *node) appears(t *testing.T, name string) {
	t.Helper()
	for {
		if _, err := os.Stat(filepath.Join(n.dir, name)); err == nil {
			return
		}
		select {
		case <-n.ctx.Done():
			t.Fatalf("%s does not appear", name)
		case <-time.After(poll):
		}
	}
}

func remove(t *testing.T, n *node) {
	n.container(t, "running", daemon.Stdio{}, "sleep", "600")
	n.start(t, "running", "")
	if _, err := n.Delete(n.ctx, "running", ""); err == nil {
		t.Error("a running task could be deleted")
	}
	n.end(t, "running")

	// One that never started: its init is killed first, as containerd's clients do.
	n.container(t, "created", daemon.Stdio{}, "sleep", "600")
	n.end(t, "created")
	// The id is free again.
	n.container(t, "created", daemon.Stdio{}, "true")
	n.start(t, "created", "")
	n.wait(t, "created", "", 0)
	n.delete(t, "created", 0)
}

func restart(t *testing.T, n *node) {
	for name, end := range map[string]func() error{"terminated": n.d.Terminate, "killed": n.d.Kill} {
		n.container(t, name, daemon.Stdio{}, "sh", "-c", "while ! [ -e /tmp/"+name+" ]; do sleep 0.1; done; exit 11")
		pid := n.start(t, name, "")
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := n.d.Launch(n.ctx); err != nil {
			t.Fatal(err)
		}
		process, err := n.Status(n.ctx, name, "")
		if err != nil {
			t.Fatal(err)
		}
		if process.Status != tasktypes.Status_RUNNING || process.Pid != pid {
			t.Errorf("%s after the restart: %v", name, process)
		}
		if err := n.Exec(n.ctx, name, "e", daemon.Process("sh", "-c", "exit 8"), daemon.Stdio{}); err != nil {
			t.Fatal(err)
		}
		n.start(t, name, "e")
		n.wait(t, name, "e", 8)
		if _, err := n.Delete(n.ctx, name, "e"); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(n.dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		n.wait(t, name, "", 11)
		n.delete(t, name, 11)
	}
}

// exitWhileAway: the status of what exits while no containerd runs is known to the next one.
func exitWhileAway(t *testing.T, n *node) {
	n.container(t, "away", daemon.Stdio{}, "sh", "-c", "while ! [ -e /tmp/away ]; do sleep 0.1; done; exit 13")
	pid := n.start(t, "away", "")
	if err := n.d.Terminate(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "away"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for syscall.Kill(int(pid), 0) == nil {
		if n.ctx.Err() != nil {
			t.Fatal("the container does not end")
		}
		time.Sleep(poll)
	}
	if err := n.d.Launch(n.ctx); err != nil {
		t.Fatal(err)
	}
	n.wait(t, "away", "", 13)
	n.delete(t, "away", 13)
}
