package soak

// What is done to a wave while it runs, and what must hold afterwards. One
// goroutine does one thing after the other, so that what is seen after a fault
// is that fault's.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/larkshim/lark/e2e/daemon"
)

const (
	// awayFor is the longest that containerd stays dead.
	awayFor = 1500 * time.Millisecond
	// awayKills is the most inits, and the most execs, that die in that time.
	awayKills = 3
	// burialBound is how long containerd and the shim's delete may take to clear
	// away what a dead shim has left.
	burialBound = 60 * time.Second
)

// sabotage does the wave's faults, until the wave is over.
func (s *soak) sabotage(ctx context.Context, over <-chan struct{}, w *wave) {
	r := rand.New(rand.NewPCG(w.seed, 2))
	for _, f := range w.plan.faults {
		select {
		case <-time.After(f.after):
		case <-over:
			if s.cfg.Chance < 1 {
				return
			}
			// Certain faults are done to the pod at least.
		case <-ctx.Done():
			return
		}
		switch f.kind {
		case killContainerd:
			s.killContainerd(ctx, w, r)
		case killShim:
			s.killShim(ctx, w, r)
		}
	}
}

// killContainerd kills it, lets processes die while it is away, starts it again
// and looks at every task.
func (s *soak) killContainerd(ctx context.Context, w *wave, r *rand.Rand) {
	s.whole.Lock() // no create and no delete of a task is under way
	defer s.whole.Unlock()
	s.up.down()
	if err := s.d.Kill(); err != nil {
		s.problem("killing containerd: %v", err)
	}
	if err := s.tap.close(); err != nil {
		s.problem("closing the tap: %v", err)
	}
	s.count("containerd killed")
	struck := s.strikeAway(w, r)
	s.sleep(ctx, time.Duration(r.Int64N(int64(awayFor))))
	if err := s.tap.open(); err != nil {
		s.problem("opening the tap: %v", err)
	}
	if err := s.d.Launch(ctx); err != nil {
		s.problem("containerd does not come up: %v", err)
		s.up.again()
		return
	}
	if err := s.subscribe(ctx); err != nil {
		s.problem("subscribing again: %v", err)
	}
	for _, b := range append(w.boxes, s.pod) {
		s.truth(ctx, b, struck[b])
	}
	s.up.again()
}

// strikeAway kills some inits and execs by their pids.
func (s *soak) strikeAway(w *wave, r *rand.Rand) map[*box]bool {
	struck := map[*box]bool{}
	execs := 0
	for _, i := range r.Perm(len(w.boxes)) {
		b := w.boxes[i]
		pid := b.last.Swap(0)
		switch {
		case !b.ready.Load():
		case pid != 0 && execs < awayKills:
			execs++
			s.d.KillOne(int(pid))
			s.count("exec died while containerd was away")
		case len(struck) < awayKills:
			b.ending.Store(true)
			struck[b] = true
			s.d.KillOne(int(b.pid))
			s.count("init died while containerd was away")
		}
	}
	return struck
}

// truth asks the new containerd about a task that has outlived the old one: it
// runs, with its own pid, unless its init was killed.
func (s *soak) truth(ctx context.Context, b *box, struck bool) {
	if !b.made || b.lost.Load() || b.gone.Load() || b.ending.Load() && !struck {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Bound)
	defer cancel()
	p, err := s.c.Status(ctx, b.id, "")
	state := p.GetStatus().String()
	switch {
	case struck && errdefs.IsNotFound(err): // containerd deletes on its start what has no process
		b.gone.Store(true)
		return
	case struck && err == nil && state == "STOPPED" && p.ExitStatus == killed:
		return
	case struck && err == nil && state == "RUNNING":
		// Its exit is announced a moment after the kill. Its wait will tell.
		return
	case b.ending.Load() && !struck:
		return
	case err != nil || p.Pid != b.pid || state != "RUNNING" && state != "PAUSED" && state != "PAUSING":
		s.problem("after containerd's death, state of %s: %s, pid %d, status %d, %v; it runs as pid %d", b.id, state, p.GetPid(), p.GetExitStatus(), err, b.pid)
		return
	}
	resp, err := s.c.Tasks.ListPids(s.c.In(ctx), &tasksapi.ListPidsRequest{ContainerID: b.id})
	if err != nil && !b.ending.Load() {
		s.problem("after containerd's death, pids of %s: %v", b.id, errgrpc.ToNative(err))
		return
	}
	for _, q := range resp.GetProcesses() {
		if q.Pid == b.pid {
			return
		}
	}
	if !b.ending.Load() {
		s.problem("after containerd's death, pids of %s are without its init's, %d: %v", b.id, b.pid, resp.GetProcesses())
	}
}

// killShim kills a shim that is not the pod's and looks at what is left of its
// containers when containerd has had `delete` clear them away.
func (s *soak) killShim(ctx context.Context, w *wave, r *rand.Rand) {
	var chosen *box
	for _, i := range r.Perm(len(w.boxes)) {
		if b := w.boxes[i]; b.plan.place != inPod && b.ready.Load() && !b.ending.Load() && !b.lost.Load() {
			chosen = b
			break
		}
	}
	if chosen == nil {
		return
	}
	shim, ok := s.shimOf(chosen.pid)
	if !ok {
		if !chosen.ending.Load() {
			s.problem("%s, pid %d, has no shim", chosen.id, chosen.pid)
		}
		return
	}
	var victims []*box
	s.whole.Lock() // a task that is being deleted goes its own way
	for _, b := range w.boxes {
		if b.group == chosen.group && b.made && !b.done.Load() && !b.gone.Load() {
			b.lost.Store(true)
			b.ending.Store(true)
			victims = append(victims, b)
		}
	}
	s.loseGroup(chosen.group)
	s.d.KillOne(shim.Pid)
	s.whole.Unlock()
	s.count("shim killed")
	s.bury(ctx, shim, victims)
	s.tap.forget(chosen.group)
}

// shimOf finds the shim that is the parent of an init.
func (s *soak) shimOf(init uint32) (daemon.Proc, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", init))
	if err != nil {
		return daemon.Proc{}, false
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	parent, err := strconv.Atoi(f[1])
	if err != nil || parent == s.podShim.Pid {
		return daemon.Proc{}, false
	}
	for _, p := range s.d.Shims() {
		if p.Pid == parent {
			return p, true
		}
	}
	return daemon.Proc{}, false
}

// bury waits until containerd has told of each container's end, and until nothing
// of it is left.
func (s *soak) bury(ctx context.Context, shim daemon.Proc, victims []*box) {
	ctx, cancel := context.WithTimeout(ctx, burialBound)
	defer cancel()
	for _, b := range victims {
		for s.exitSeen(b.id) == nil && ctx.Err() == nil {
			s.sleep(ctx, poll)
		}
		if e := s.exitSeen(b.id); e == nil {
			s.problem("the shim of %s was killed, and containerd has not told of its end", b.id)
		} else if e.Status != killed {
			s.problem("the shim of %s was killed, and its end is told with status %d", b.id, e.Status)
		}
		left := s.remains(b, shim)
		for len(left) > 0 && ctx.Err() == nil {
			s.sleep(ctx, poll)
			left = s.remains(b, shim)
		}
		if len(left) > 0 {
			s.problem("the shim of %s was killed; left: %q", b.id, left)
		}
		close(b.buried)
	}
}

// remains names what is left of a container: its shim, processes, cgroups, mounts,
// bundle, and the runtime's state.
func (s *soak) remains(b *box, shim daemon.Proc) []string {
	var left []string
	if stillShim(shim) {
		left = append(left, "shim "+shim.String())
	}
	for _, dir := range append(s.d.Cgroups(), s.d.Mounts()...) {
		if strings.Contains(dir+"/", "/"+b.id+"/") {
			left = append(left, dir)
		}
	}
	for _, pattern := range []string{"/state/io.containerd.runtime.v2.task/*/", "/runc/*/"} {
		matches, _ := filepath.Glob(s.d.Dir() + pattern + b.id)
		left = append(left, matches...)
	}
	return left
}

// stillShim says whether the pid is still that shim's and no other process's.
func stillShim(shim daemon.Proc) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", shim.Pid))
	return err == nil && strings.TrimRight(string(b), "\x00") == strings.Join(shim.Argv, "\x00")
}
