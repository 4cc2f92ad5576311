package children

import (
	"context"
	"os/exec"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// panicky is a kernel each of whose calls panics once, from the time it is armed.
type panicky struct {
	system
	mu    sync.Mutex
	armed map[string]bool
	fired []string
}

func (p *panicky) call(name string) {
	p.mu.Lock()
	fire := p.armed[name]
	if fire {
		p.armed[name] = false
		p.fired = append(p.fired, name)
	}
	p.mu.Unlock()
	if fire {
		panic("in " + name)
	}
}

func (p *panicky) waitid(idType, id int, peek bool) (exited, bool, error) {
	p.call("waitid")
	return p.system.waitid(idType, id, peek)
}

func (p *panicky) readFile(path string, buf []byte) (int, error) {
	p.call("read")
	return p.system.readFile(path, buf)
}

func (p *panicky) pidfdOpen(pid int) (int, error) {
	p.call("pidfd_open")
	return p.system.pidfdOpen(pid)
}

// TestF13SweepPanics: a sweep that panics ends neither the program nor the
// sweeping: the orphan is reaped all the same.
func TestF13SweepPanics(t *testing.T) {
	sys := &panicky{system: kernel{}, armed: map[string]bool{}}
	o := owner(t, sys) // and at its end no child may be left
	cmd := exec.Command("busybox", "sh", "-c", "sleep 3600 >/dev/null 2>&1 & echo $!")
	p, out, err := start(o, cmd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	pids, err := parsePids(out(), nil)
	if err != nil || len(pids) != 1 {
		t.Fatal(pids, err)
	}
	sys.mu.Lock()
	sys.armed = map[string]bool{"waitid": true, "read": true, "pidfd_open": true}
	sys.mu.Unlock()
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the sweep panics twice and goes on", func() string {
		sys.mu.Lock()
		defer sys.mu.Unlock()
		if len(sys.fired) < 2 {
			return "panics: " + describe(pids)
		}
		return ""
	})
}
