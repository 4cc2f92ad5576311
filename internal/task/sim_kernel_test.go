package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/oci"
	"github.com/larkshim/lark/internal/stdio"
)

// simKernel is the simulated rooms: a kernel with processes, and a runtime with
// containers.
type simKernel struct {
	*chooser

	mu      sync.Mutex
	pids    int
	procs   []*simProc
	boxes   map[string]*simBox
	oom     map[string]*simOOM
	streams int // open
	// trespasses are calls that reached a container of another life of their id.
	trespasses []string
}

func newSimKernel(c *chooser) *simKernel {
	return &simKernel{chooser: c, pids: 100, boxes: map[string]*simBox{}, oom: map[string]*simOOM{}}
}

// simBox is what the runtime knows of a container.
type simBox struct {
	id      string
	private bool // a pid namespace of its own
	init    *simProc
	started bool
	frozen  bool
	// kept: the runtime was asked to forget it, and failed.
	kept bool
}

// simProc is a process of a container.
type simProc struct {
	k    *simKernel
	box  *simBox
	name string
	pid  int

	// killed: it dies as soon as it may run.
	killed bool
	dead   bool
	reaped bool
	status uint32
	// ready is closed when it can be reaped.
	ready  chan struct{}
	closed bool
	// orphan: the shell does not know it, and the sweep of orphans reaps it.
	orphan bool
}

// fork makes a process; k.mu is held.
func (k *simKernel) fork(b *simBox, name string) *simProc {
	k.pids++
	p := &simProc{k: k, box: b, name: name, pid: k.pids, ready: make(chan struct{})}
	k.procs = append(k.procs, p)
	return p
}

// die ends a process; k.mu is held. In a pid namespace of the container's own
// init takes the others along, and cannot be reaped before they were
// (pid_namespaces(7)).
func (k *simKernel) die(p *simProc, status uint32) {
	if p.dead {
		return
	}
	p.dead, p.status, p.reaped = true, status, p.orphan
	if p == p.box.init && p.box.private {
		for _, o := range k.procs {
			if o.box == p.box && o != p && !o.dead {
				k.die(o, 137)
			}
		}
	}
	k.settle()
}

// settle wakes the waiters of what can be reaped now; k.mu is held.
func (k *simKernel) settle() {
	for _, p := range k.procs {
		if p.dead && !p.closed && !(p == p.box.init && p.box.private && k.others(p)) {
			p.closed = true
			close(p.ready)
		}
	}
}

// others says whether a process of init's namespace was not reaped; k.mu is held.
func (k *simKernel) others(init *simProc) bool {
	for _, o := range k.procs {
		if o.box == init.box && o != init && !o.reaped {
			return true
		}
	}
	return false
}

// kill sends SIGKILL; k.mu is held. A frozen process dies when it is thawed.
func (k *simKernel) kill(p *simProc) {
	p.killed = true
	if !p.box.frozen {
		k.die(p, 137)
	}
}

func (k *simKernel) killBox(b *simBox) {
	for _, p := range k.procs {
		if p.box == b && !p.dead {
			k.kill(p)
		}
	}
}

func (k *simKernel) thaw(b *simBox) {
	b.frozen = false
	for _, p := range k.procs {
		if p.box == b && p.killed && !p.dead {
			k.die(p, 137)
		}
	}
}

// forks are the inits that may fork a process which the shell does not know.
func (k *simKernel) forks() (all []action) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, b := range k.boxes {
		if b.started && !b.frozen && !b.init.dead {
			all = append(all, action{"forks init of " + id, 0.5, func() {
				k.mu.Lock()
				defer k.mu.Unlock()
				k.fork(b, "daemon of "+id).orphan = true
			}})
		}
	}
	return all
}

// alive lists what lives.
func (k *simKernel) alive() (list []*simProc) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.procs {
		if !p.dead {
			list = append(list, p)
		}
	}
	return list
}

func (p *simProc) Pid() int { return p.pid }

func (p *simProc) Signal(sig unix.Signal) error {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	switch {
	case p.reaped:
		return os.ErrProcessDone
	case p.dead: // a zombie takes signals
	case sig == unix.SIGKILL:
		p.k.kill(p)
	}
	return nil
}

func (p *simProc) Died(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *simProc) Wait(ctx context.Context) (children.Exit, error) {
	select {
	case <-p.ready:
	case <-ctx.Done():
		return children.Exit{}, context.Cause(ctx)
	}
	p.k.ask("reap "+p.name, "ok")
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	p.reaped = true
	p.k.settle()
	return children.Exit{Status: p.status, At: time.Now()}, nil
}

// errSim is a failure of the simulated runtime that says nothing of the subject.
var errSim = errors.New("the simulated runtime fails")

// simPanic is what the simulated rooms panic with.
type simPanic string

// outcome asks and carries out what every call may do.
func (k *simKernel) outcome(label string) error {
	return k.outcomeUntil(context.Background(), label)
}

// outcomeUntil is outcome for a call that can be ended by its context.
func (k *simKernel) outcomeUntil(ctx context.Context, label string) error {
	out, err := k.askUntil(ctx, label, "ok", "fails", "panics")
	if err != nil {
		return err
	}
	switch out {
	case "fails":
		return errSim
	case "panics":
		panic(simPanic(label))
	}
	return nil
}

func (k *simKernel) newRuntime(c oci.Config) (ociRuntime, error) {
	return &simRuntime{k: k, dir: c.Dir}, nil
}

func (k *simKernel) locate(pid int, path, id string, systemd bool) (cgroup.Group, error) {
	return cgroup.Group{}, nil
}

func (k *simKernel) fromSpec(path, id string, systemd bool) (cgroup.Group, error) {
	return cgroup.Group{}, fmt.Errorf("no cgroup: %w", errdefs.ErrNotFound)
}

func (k *simKernel) thawAll(string) error { return nil }

func (k *simKernel) killAll(ctx context.Context, dir string) error {
	return errors.New("there are no cgroups in the simulation")
}

func (k *simKernel) killShared(context.Context, sharing) (bool, error) { return false, nil }

// simStreams is the stdio of one process.
type simStreams struct {
	k    *simKernel
	name string
	once sync.Once
}

func (k *simKernel) newStreams(ctx context.Context, log *slog.Logger, s stdio.Spec) (streams, error) {
	if err := k.outcome("streams " + s.ContainerID); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.streams++
	return &simStreams{k: k, name: s.ContainerID}, nil
}

func (s *simStreams) Set(*exec.Cmd)                     {}
func (s *simStreams) CloseAfterStart() error            { return nil }
func (s *simStreams) ConsolePath() string               { return "" }
func (s *simStreams) Attach(ctx context.Context) error  { return s.k.outcome("attach " + s.name) }
func (s *simStreams) CloseStdin()                       {}
func (s *simStreams) Resize(width, height uint16) error { return nil }
func (s *simStreams) Exited()                           {}

func (s *simStreams) Drain(ctx context.Context) error {
	s.k.ask("drain "+s.name, "ok")
	return nil
}

func (s *simStreams) Close() error {
	s.once.Do(func() {
		s.k.mu.Lock()
		defer s.k.mu.Unlock()
		s.k.streams--
	})
	return nil
}

// simOOM is the watch for OOM kills in one container.
type simOOM struct {
	k      *simKernel
	id     string
	killed func()
	over   bool
}

func (k *simKernel) watchOOM(_ cgroup.Group, killed func()) (oomWatch, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := &simOOM{k: k, id: fmt.Sprint("oom ", len(k.oom)), killed: killed}
	k.oom[w.id] = w
	return w, nil
}

func (w *simOOM) Died() {}

func (w *simOOM) Last(bool) (bool, error) {
	found := w.k.ask("last look", "nothing", "oom", "panics")
	w.k.mu.Lock()
	w.over = true
	w.k.mu.Unlock()
	if found == "panics" {
		panic(simPanic("last look"))
	}
	return found == "oom", nil
}

// simRuntime is the runtime of one bundle.
type simRuntime struct {
	k   *simKernel
	dir string
	box *simBox
}

func (r *simRuntime) Sharers(string, []int) []oci.Init { return nil }

func (r *simRuntime) Known(id string) bool {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	return r.k.boxes[id] != nil
}

func (r *simRuntime) KillIsSignal() bool { return false }

func (r *simRuntime) Clear(ctx context.Context, id string) error {
	out := r.k.ask("clear "+id, "ok", "fails", "panics")
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	if out != "ok" {
		if b := r.k.boxes[id]; b != nil {
			b.kept = true
		}
	}
	switch out {
	case "fails":
		return errSim
	case "panics":
		panic(simPanic("clear"))
	}
	if b := r.k.boxes[id]; b != nil {
		r.k.thaw(b)
		r.k.killBox(b)
		delete(r.k.boxes, id)
	}
	return nil
}

func (r *simRuntime) Create(ctx context.Context, id string, c oci.CreateCall) (child, error) {
	if err := r.k.outcome("runtime create " + id); err != nil {
		return nil, err
	}
	r.k.mu.Lock()
	if r.k.boxes[id] != nil {
		r.k.mu.Unlock()
		return nil, fmt.Errorf("container %q exists: %w", id, errdefs.ErrAlreadyExists)
	}
	b := &simBox{id: id, private: !c.Namespace.Shared()}
	b.init = r.k.fork(b, "init of "+id)
	r.k.boxes[id] = b
	r.box = b
	r.k.mu.Unlock()
	if r.k.ask("runtime create "+id+" returns", "ok", "fails") == "fails" {
		return b.init, errSim
	}
	return b.init, nil
}

// known is the container that the runtime knows by this id; k.mu is held.
func (r *simRuntime) known(id, call string) *simBox {
	b := r.k.boxes[id]
	if b != nil && r.box != nil && b != r.box {
		r.k.trespasses = append(r.k.trespasses, call+" of an earlier life reached container "+id)
	}
	return b
}

// live is the container and whether its init lives; k.mu is held.
func (r *simRuntime) live(id, call string) (*simBox, error) {
	b := r.known(id, call)
	switch {
	case b == nil:
		return nil, fmt.Errorf("container %q does not exist: %w", id, errdefs.ErrNotFound)
	case b.init.dead || b.init.killed:
		return b, fmt.Errorf("container %q is stopped", id)
	}
	return b, nil
}

// call is a control call that has its effect, fails before it or after it.
func (r *simRuntime) call(ctx context.Context, label, id string, effect func(*simBox)) error {
	late := false
	out, err := r.k.askUntil(ctx, "runtime "+label+" "+id, "ok", "fails", "fails late", "panics")
	if err != nil {
		return err
	}
	switch out {
	case "fails":
		return errSim
	case "fails late":
		late = true
	case "panics":
		panic(simPanic(label))
	}
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	b, err := r.live(id, label)
	if err != nil {
		return err
	}
	effect(b)
	if late {
		return errSim
	}
	return nil
}

func (r *simRuntime) Start(ctx context.Context, id string) error {
	if r.k.ask("runtime start "+id, "goes on", "hangs") == "hangs" {
		r.k.mu.Lock()
		if b, err := r.live(id, "start"); err == nil {
			b.started = true // it may run, and the caller cannot know
		}
		r.k.mu.Unlock()
		return context.DeadlineExceeded
	}
	return r.call(ctx, "start", id, func(b *simBox) { b.started = true })
}

func (r *simRuntime) Exec(ctx context.Context, id string, c oci.ExecCall) (child, error) {
	name := filepath.Base(c.PidFile) + " of " + id
	if err := r.k.outcome("runtime exec " + name); err != nil {
		return nil, err
	}
	r.k.mu.Lock()
	b, err := r.live(id, "exec")
	if err != nil || b.frozen {
		r.k.mu.Unlock()
		return nil, errors.Join(err, errSim)
	}
	p := r.k.fork(b, name)
	r.k.mu.Unlock()
	if r.k.ask("runtime exec "+name+" returns", "ok", "fails") == "fails" {
		return p, errSim
	}
	return p, nil
}

func (r *simRuntime) Restore(ctx context.Context, id string, c oci.RestoreCall) (child, error) {
	return r.Create(ctx, id, oci.CreateCall{Namespace: c.Namespace})
}

func (r *simRuntime) Kill(ctx context.Context, id string, sig unix.Signal, all bool) error {
	if err := r.k.outcomeUntil(ctx, fmt.Sprintf("runtime kill %s %d %v", id, sig, all)); err != nil {
		return err
	}
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	b := r.known(id, "kill")
	if b == nil {
		return fmt.Errorf("container %q does not exist: %w", id, errdefs.ErrNotFound)
	}
	if all {
		r.k.thaw(b)
		r.k.killBox(b)
	} else if sig == unix.SIGKILL && !b.init.dead {
		r.k.kill(b.init)
	}
	return nil
}

func (r *simRuntime) Delete(ctx context.Context, id string, force bool) error {
	if err := r.k.outcomeUntil(ctx, "runtime delete "+id); err != nil {
		return err
	}
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	b := r.known(id, "delete")
	switch {
	case b == nil:
		return fmt.Errorf("container %q does not exist: %w", id, errdefs.ErrNotFound)
	case !b.init.dead && !force:
		return errors.New("container is not stopped")
	}
	r.k.killBox(b)
	delete(r.k.boxes, id)
	return nil
}

func (r *simRuntime) Pause(ctx context.Context, id string) error {
	return r.call(ctx, "pause", id, func(b *simBox) { b.frozen = true })
}

func (r *simRuntime) Resume(ctx context.Context, id string) error {
	if err := r.k.outcomeUntil(ctx, "runtime resume "+id); err != nil {
		return err
	}
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	b := r.known(id, "resume")
	if b == nil {
		return fmt.Errorf("container %q does not exist: %w", id, errdefs.ErrNotFound)
	}
	r.k.thaw(b)
	return nil
}

func (r *simRuntime) Update(ctx context.Context, id string, _ *specs.LinuxResources) error {
	return r.call(ctx, "update", id, func(*simBox) {})
}

func (r *simRuntime) Checkpoint(ctx context.Context, id string, c oci.CheckpointCall) error {
	return r.call(ctx, "checkpoint", id, func(b *simBox) {
		if !c.LeaveRunning {
			r.k.thaw(b)
			r.k.killBox(b)
			delete(r.k.boxes, id)
		}
	})
}

func (r *simRuntime) State(ctx context.Context, id string) (*runc.Container, error) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	b := r.k.boxes[id]
	if b == nil {
		return nil, fmt.Errorf("container %q does not exist: %w", id, errdefs.ErrNotFound)
	}
	status := "running"
	switch {
	case b.frozen:
		status = "paused"
	case b.init.dead:
		status = "stopped"
	case !b.started:
		status = "created"
	}
	return &runc.Container{ID: id, Pid: b.init.pid, Status: status}, nil
}
