package task

import (
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

// With cgroup v2 a frozen init dies of SIGKILL at once, whoever sends it (the OOM killer
// or an administrator). runc looks at the freezer before it looks whether init lives, and
// will not delete what it calls paused: the shim has to thaw what is dead.
func TestInitKilledWhileFrozen(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{StaysPaused: true}, "sleep", "1000")
	pid := b.create()
	b.start("")
	if _, err := s.Pause(t.Context(), &task.PauseRequest{ID: b.id}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(int(pid), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.is(order.Exited, "")
	if d := b.mustDelete(""); d.ExitStatus != 137 || d.Pid != pid {
		t.Errorf("delete: %v", d)
	}
	if n := ctl.Calls(t, fake.Resume); n != 1 {
		t.Errorf("%d calls of resume", n)
	}
}
