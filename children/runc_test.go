package children

// The same with the real runc, whose `exec --detach` forks thrice and leaves its process group.

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// container is one of the real runtime's.
type container struct {
	o    *Owner
	ns   *PIDNamespace
	dir  string
	id   string
	init *Child
}

// runtimeCall makes a call of runc.
func (c *container) runtimeCall(args ...string) *exec.Cmd {
	cmd := exec.Command("runc", append([]string{"--root", filepath.Join(c.dir, "state")}, args...)...)
	cmd.Dir = c.dir
	return cmd
}

// call runs a call to its end. Its output is not copied: the container's processes have it too.
func (c *container) call(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	log := filepath.Join(c.dir, "log")
	cmd.Args = append([]string{cmd.Args[0], "--log", log}, cmd.Args[1:]...)
	p, err := c.o.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(impatient(t)); err != nil || exit.Status != 0 {
		text, _ := os.ReadFile(log)
		t.Fatalf("%v: %+v, %v: %s", cmd.Args, exit, err, text)
	}
}

// newContainer creates and starts one that sleeps, from a root filesystem of busybox alone.
func newContainer(t *testing.T, o *Owner, ns *PIDNamespace) *container {
	t.Helper()
	c := &container{o: o, ns: ns, dir: t.TempDir(), id: fmt.Sprintf("lark-children-%d-%d", os.Getpid(), rand.Uint32())}
	t.Cleanup(func() { unmountBelow(t, c.dir) })
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("the tests need busybox-static and runc:", err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(c.dir, "rootfs", "bin")
	must(os.MkdirAll(bin, 0o755))
	text, err := os.ReadFile(busybox)
	must(err)
	must(os.WriteFile(filepath.Join(bin, "busybox"), text, 0o755))
	must(os.Symlink("busybox", filepath.Join(bin, "sleep")))
	must(os.MkdirAll(filepath.Join(c.dir, "rootfs", "proc"), 0o755))
	config, err := json.Marshal(c.spec())
	must(err)
	must(os.WriteFile(filepath.Join(c.dir, "config.json"), config, 0o600))

	w := o.Begin(ns)
	defer w.Close()
	c.call(t, c.runtimeCall("create", "--pid-file", filepath.Join(c.dir, "init.pid"), c.id))
	c.init, err = w.Claim(c.readPid(t, "init.pid"))
	must(err)
	c.call(t, c.runtimeCall("start", c.id))
	return c
}

// unmountBelow takes away what a killed runc 1.1 leaves in its state directory: a bind mount of itself, runc.XXXXXX, by
// which it protects its binary.
func unmountBelow(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if point := strings.Fields(line)[4]; strings.HasPrefix(point, dir+"/") {
			if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
				t.Errorf("%s: %v", point, err)
			}
		}
	}
}

// spec is the least that runc takes.
func (c *container) spec() map[string]any {
	namespaces := []map[string]string{{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}}
	if !c.ns.Shared() {
		namespaces = append(namespaces, map[string]string{"type": "pid"})
	}
	return map[string]any{
		"ociVersion": "1.0.2",
		"process":    c.process("3600"),
		"root":       map[string]any{"path": "rootfs"},
		"mounts":     []map[string]any{{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux":      map[string]any{"namespaces": namespaces, "cgroupsPath": "/" + c.id},
	}
}

func (c *container) process(sleep string) map[string]any {
	return map[string]any{"args": []string{"/bin/sleep", sleep}, "cwd": "/", "env": []string{"PATH=/bin"}}
}

func (c *container) readPid(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// remove kills and deletes the container.
func (c *container) remove(t *testing.T) {
	t.Helper()
	end(t, c.init)
	c.call(t, c.runtimeCall("delete", "--force", c.id))
}

// exec calls `runc exec --detach` and kills it after some time. It reports whether it was over before, and what it has
// written down is claimed and killed.
func (c *container) exec(t *testing.T, marker string, after time.Duration) (inTime bool) {
	t.Helper()
	const pidFile, process = "exec.pid", "process.json"
	text, err := json.Marshal(c.process(marker))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, process), text, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(c.dir, pidFile))
	_ = os.Remove(filepath.Join(c.dir, "."+pidFile)) // runc's own, which a killed one leaves and the next refuses
	w := c.o.Begin(c.ns)
	defer w.Close()
	log := filepath.Join(c.dir, "exec.log")
	p, err := c.o.Start(c.runtimeCall("--log", log, "exec", "--detach", "--pid-file", pidFile, "--process", process, c.id))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), after)
	defer cancel()
	exit, err := p.Wait(ctx)
	inTime = err == nil
	if !inTime {
		if err := p.KillTree(c.ns); err != nil {
			t.Error(err)
		}
		if exit, err = p.Wait(impatient(t)); err != nil {
			t.Error(err)
		}
	} else if exit.Status != 0 {
		text, _ := os.ReadFile(log)
		t.Errorf("runc exec: %+v: %s", exit, text)
	}
	if _, err := os.Stat(filepath.Join(c.dir, pidFile)); err != nil {
		return inTime
	}
	child, err := w.Claim(c.readPid(t, pidFile))
	if err != nil {
		if inTime {
			t.Error(err)
		}
		return inTime
	}
	_ = child.Signal(unix.SIGKILL)
	if _, err := child.Wait(impatient(t)); err != nil {
		t.Error(err)
	}
	return inTime
}

// Real calls of `runc exec`, killed at random moments, leave no process behind, in the container's own pid namespace or in
// ours. Two of 75 did before there was KillTree.
func TestRuncExecKilledAtRandom(t *testing.T) {
	calls := 60
	if soak {
		calls = 1000
	}
	if testing.Short() || thin > 1 {
		calls = 10
	}
	for _, name := range []string{"own pid namespace", "the host's pid namespace"} {
		t.Run(name, func(t *testing.T) {
			o := owner(t, kernel{})
			ns := o.OwnNamespace()
			if name == "own pid namespace" {
				ns = NewNamespace()
			}
			c := newContainer(t, o, ns)
			_, marker := sleeper(t, "runc")
			whole := patience // how long one takes here
			for range 5 {
				began := time.Now()
				c.exec(t, marker, patience)
				whole = min(whole, time.Since(began))
			}
			inTime := 0
			for range calls {
				if c.exec(t, marker, time.Duration(rand.Int64N(int64(whole*3/2)))) {
					inTime++
				}
			}
			noneAlive(t, marker)
			c.remove(t)
			t.Logf("%d calls of %v, %d of them killed", calls, whole, calls-inTime)
			if inTime == calls {
				t.Error("none was killed")
			}
		})
	}
}

// The way of a container through windows and claims, with the real runc and nothing else.
func TestRuncContainer(t *testing.T) {
	o := owner(t, kernel{})
	c := newContainer(t, o, NewNamespace())
	if c.ns.Shared() || c.ns.ino.Load() == 0 {
		t.Error("the container's namespace was not learnt")
	}
	_, marker := sleeper(t, "whole")
	if !c.exec(t, marker, patience) {
		t.Error("the exec was killed")
	}
	c.remove(t)
}
