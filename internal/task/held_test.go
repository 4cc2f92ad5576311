package task

// F11: while the kernel holds up an execve (an on-access scanner, slow storage),
// everything goes on that does not need that very program.

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/heldexec"
	"github.com/larkshim/lark/internal/order"
)

// gate makes a gate in front of the container's runtime.
func (b *box) gate() *heldexec.Gate {
	b.t.Helper()
	o := &options.Options{}
	if err := proto.Unmarshal(b.request.Options.Value, o); err != nil {
		b.t.Fatal(err)
	}
	g, err := heldexec.Open(o.BinaryName)
	if err != nil {
		b.t.Fatal(err)
	}
	stop, err := heldexec.Watchdog(3 * patience)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		stop()
		if err := g.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return g
}

// held waits until an execution is held.
func held(t *testing.T, g *heldexec.Gate) *heldexec.Execution {
	t.Helper()
	select {
	case e := <-g.Held():
		return e
	case <-time.After(patience):
		t.Fatal("the runtime is not executed")
		return nil
	}
}

// While the execve of one exec's runtime call is held, other containers live and
// die, the same container's other execs are killed and waited for, and init is
// killed by the runtime.
func TestF11HeldExecve(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	b.start("")
	b.exec("other", "sleep", "1000")
	if err := b.addExec("slow", "true"); err != nil {
		t.Fatal(err)
	}
	g := b.gate()
	g.Hold(1)
	slow := b.beginStart("slow")
	e := held(t, g)

	runtime.GC()
	b.answers("other")
	if err := b.kill("other", 9); err != nil {
		t.Error("kill of another exec:", err)
	}
	if status := b.wait("other"); status != 137 {
		t.Errorf("another exec: status %d", status)
	}
	b.mustDelete("other")
	b.exec("later", "sleep", "1000")
	b.liveOn(ctl, "held execve")
	if err := b.kill("", 15); err != nil {
		t.Error("signal to init:", err)
	}
	if n := ctl.Calls(t, fake.Kill); n == 0 {
		t.Error("init was not signalled by the runtime")
	}
	pending(t, "the held start", slow)
	e.Release()
	ended(t, "the released start", slow)
}

// A SIGKILL of init does not wait for a runtime that cannot be executed, and the
// runtime does not run later. A paused container is thawed.
func TestF11HeldKillOfInit(t *testing.T) {
	t.Setenv("LARK_TIMEOUT_KILL", "0")
	t.Setenv("LARK_TIMEOUT_KILL_LAUNCH", "100ms")
	for _, paused := range []bool{false, true} {
		t.Run(map[bool]string{false: "running", true: "paused"}[paused], func(t *testing.T) {
			s := newShim(t)
			b := s.container(nil, "sleep", "1000")
			b.use(copyOfRunc(t), filepath.Join(s.dir, "runc"))
			b.create()
			b.start("")
			if paused {
				if _, err := s.Pause(t.Context(), &task.PauseRequest{ID: b.id}); err != nil {
					t.Fatal(err)
				}
			}
			g := b.gate()
			g.Hold(-1)
			kill := begin(func() (struct{}, error) { return struct{}{}, b.kill("", 9) })
			e := held(t, g)
			if r := ended(t, "kill", kill); r.err != nil {
				t.Errorf("kill: %v\n%s", r.err, s.log)
			}
			if status := b.wait(""); status != 137 {
				t.Errorf("status %d", status)
			}
			b.is(order.Exited, "")
			g.Hold(0)
			e.Release()
			for len(g.Held()) > 0 { // what else was asked of the runtime meanwhile
				(<-g.Held()).Release()
			}
			b.mustDelete("")
		})
	}
}

// copyOfRunc is a runc that this test alone executes, by a name of which it is not
// known that its kill is a signal.
func copyOfRunc(t *testing.T) string {
	t.Helper()
	from, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "copy-of-runc")
	syscall.ForkLock.RLock() // a child that has it open for writing would be in the way
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, text, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}
