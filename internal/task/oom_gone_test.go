package task

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/cgroup"
	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

// removing is rooms on a host whose systemd removes the cgroup of a dead init: its
// watch sees an OOM kill before init is reaped, and not after.
type removing struct {
	rooms
	mu     sync.Mutex
	killed func()
	pid    int
	states []string // of init, when its death was seen
	struck []bool
}

func (r *removing) watchOOM(_ cgroup.Group, killed func()) (oomWatch, error) {
	r.killed = killed
	return r, nil
}

func (r *removing) Died() {
	r.mu.Lock()
	pid := r.pid
	r.mu.Unlock()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	state := fmt.Sprint(err)
	if f := strings.Fields(string(text)); len(f) > 2 {
		state = f[2]
	}
	r.mu.Lock()
	r.states = append(r.states, state)
	r.mu.Unlock()
	r.killed()
}

func (r *removing) Last(struck bool) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.struck = append(r.struck, struck)
	return false, errors.New("the cgroup is gone")
}

// F16: the OOM count is looked at once init is dead and before it is reaped; the
// last look knows whether the SIGKILL was the shim's own, and says what it could
// not look at.
func TestF16LooksBeforeTheReaping(t *testing.T) {
	for _, own := range []bool{true, false} {
		s := newShim(t)
		r := &removing{rooms: s.rooms}
		s.rooms = r
		b := s.container(nil, "sleep", "1000")
		pid := int(b.create())
		r.mu.Lock()
		r.pid = pid
		r.mu.Unlock()
		b.start("")
		kill := func() error { return unix.Kill(pid, unix.SIGKILL) }
		if own {
			kill = func() error { return b.kill("", 9) }
		}
		if err := kill(); err != nil {
			t.Fatal(err)
		}
		if status := b.wait(""); status != 137 {
			t.Errorf("status %d", status)
		}
		b.is(order.OOM, "")
		b.is(order.Exited, "")
		r.mu.Lock()
		if len(r.states) != 1 || r.states[0] != "Z" {
			t.Errorf("init's state when its death was seen: %q", r.states)
		}
		if len(r.struck) != 1 || r.struck[0] == own {
			t.Errorf("killed by the shim: %v; the last look took it for killed by others: %v", own, r.struck)
		}
		r.mu.Unlock()
		if !strings.Contains(s.log.String(), "the cgroup is gone") {
			t.Error("a look that could not look is not in the log")
		}
		b.mustDelete("")
	}
}

// dumped is rooms in which a restored init is in the cgroup in which it was
// dumped.
type dumped struct {
	rooms
	dir string // of that cgroup, in the memory hierarchy
}

func (d dumped) locate(pid int, path, id string, systemd bool) (cgroup.Group, error) {
	if err := os.WriteFile(filepath.Join(d.dir, "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
		return cgroup.Group{}, err
	}
	return d.rooms.locate(pid, path, id, systemd)
}

// F16: a container that is restored under another id is watched in the cgroup that
// the runtime has made for it as well, in which its execs are.
func TestF16OOMOfAnExecInARestoredContainer(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	root := "/sys/fs/cgroup/memory"
	if shared.cgroups.Unified() {
		root = "/sys/fs/cgroup"
	}
	d := dumped{rooms: s.rooms, dir: filepath.Join(root, "lark-test", b.id+"-dumped")}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the container's own
		if err := os.Remove(d.dir); err != nil {
			t.Error(err)
		}
	})
	s.rooms = d
	image := filepath.Join(s.dir, "image")
	if err := os.MkdirAll(image, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(image, "fake.img"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.request.Checkpoint = image
	b.create()
	b.start("")
	for _, dir := range b.groupDirs() {
		for _, file := range []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max"} {
			_ = os.WriteFile(filepath.Join(dir, file), []byte("16777216"), 0)
		}
	}
	b.exec("e", "tail", "/dev/zero")
	if status := b.wait("e"); status != 137 {
		t.Errorf("status %d", status)
	}
	b.is(order.OOM, "")
	b.mustDelete("e")
	if err := b.kill("", 9); err != nil {
		t.Error(err)
	}
	b.wait("")
	b.mustDelete("")
}
