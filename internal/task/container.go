package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/oci"
	"github.com/larkshim/lark/internal/routine"
	"github.com/larkshim/lark/internal/stdio"
	"github.com/larkshim/lark/lifecycle"
	shimrules "github.com/larkshim/lark/lifecycle/shim"
)

const initProc = lifecycle.Init

// container is one container. What stands above mu is set before the container is
// admitted or by its Create alone, and not changed after Created was stepped.
type container struct {
	id      string
	number  shimrules.ID // in the shim's rules
	service *Service
	log     *slog.Logger
	bundle  *bundle.Bundle
	runtime ociRuntime
	// runtimeConfig is what the runtime was made of.
	runtimeConfig oci.Config
	options       createOptions
	pidns         *children.PIDNamespace
	init          *process
	mounted       bool
	// checkpoint is what a container is restored from.
	checkpoint checkpoint
	// orphan: the bundle was not there in two looks, and the shim removes the
	// container: no call of the runtime's can have it as its directory.
	orphan atomic.Bool
	// cgroupsPath is where the spec wants the cgroup to be.
	cgroupsPath string

	inFlight inFlight

	mu      sync.Mutex
	machine *lifecycle.Machine
	execs   map[lifecycle.Proc]*process
	// request is what Create was asked for, until that is announced.
	request *task.CreateTaskRequest
	// group and oom are set before the rules are told of init: at Create, or when
	// it is restored.
	group cgroup.Group
	oom   oomWatches
	// sentKill: this shim may have killed init. struckDead: init has died of a
	// SIGKILL, and this shim has sent none.
	sentKill, struckDead atomic.Bool
	// mayBeFrozen: a pause failed, and so did the thawing after it.
	mayBeFrozen bool
	// killings counts the kill-alls since one succeeded.
	killings int
}

// process is init or an exec.
type process struct {
	id     lifecycle.Proc
	execID bundle.ExecID
	stdio  stdio.Spec
	// spec is the exec's process spec, until it is started.
	spec []byte

	// told is when its start, or init's creation, was announced; guarded by
	// container.mu.
	told time.Time

	// exited is closed when the exit was announced, or when there will be none.
	exited chan struct{}
	// exit and fate are set before exited is closed.
	exit lifecycle.Exit
	fate error

	// deleting is the delete under way or done; guarded by container.mu.
	deleting *deletion

	// child and io are set, under container.mu, before the rules are told of the
	// process.
	child child
	io    streamSlot
	// noStdin: CloseIO was asked for, maybe before there was anything to close.
	noStdin atomic.Bool
	// size is the last size that ResizePty has asked for, maybe before there was a
	// terminal.
	size atomic.Pointer[specs.Box]
}

// checkpoint says where a dump lies; image is empty for a container that begins
// afresh.
type checkpoint struct{ image, parent string }

// deletion is one delete of a process; others who ask for it wait for its end.
type deletion struct {
	done   chan struct{}
	answer *task.DeleteResponse
	err    error
}

func newProcess(id lifecycle.Proc) *process {
	return &process{id: id, exited: make(chan struct{})}
}

// setIO makes io the process's stdio.
func (p *process) setIO(io streams) {
	p.io.Store(io)
	if p.noStdin.Load() {
		io.CloseStdin()
	}
	if size := p.size.Load(); size != nil {
		_ = resize(io, size) // a terminal that is not there yet refuses nothing
	}
}

// closeStdin closes the process's stdin, now or as soon as it has one.
func (p *process) closeStdin() {
	p.noStdin.Store(true)
	if io := p.io.Load(); io != nil {
		io.CloseStdin()
	}
}

// stdioExited tells the stdio of a process that has exited so: only now its
// terminal may end, and nothing holds its stdin open any more (row 42). The end
// of a terminal's input would hang it up, and lose what the process wrote last.
func (p *process) stdioExited() {
	io := p.io.Load()
	switch {
	case io == nil:
	case p.stdio.Terminal:
		io.Exited()
	default:
		io.CloseStdin()
	}
}

// dropIO lets go of the stdio of a process that does not come to run.
func (p *process) dropIO(context.Context) error {
	if io := p.io.Take(); io != nil {
		io.Close()
	}
	return nil
}

// cgroup is the container's cgroup; the zero Group if it has none yet.
func (c *container) cgroup() cgroup.Group {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.group
}

// step steps the rules and carries out the effects. again is the effect AskAgain.
func (c *container) step(ev lifecycle.Event) (again bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stepLocked(ev)
}

func (c *container) stepLocked(ev lifecycle.Event) (again bool, err error) {
	effects, err := c.machine.Step(ev)
	if observe := c.service.observe; observe != nil {
		observe(c, ev, effects, err)
	}
	if err != nil {
		if lifecycle.IsContract(err) {
			c.log.Error("the rules were told of what cannot be", "event", ev.Kind.String(), "process", ev.Proc, "error", err)
		}
		if errors.Is(err, lifecycle.ErrAbsent) {
			err = notFound("%w", err)
		}
		return false, err
	}
	for _, e := range effects {
		if e.Kind == lifecycle.AskAgain {
			again = true
			continue
		}
		// One that panics must not keep the next from being carried out: the rules count
		// on all of them.
		routine.Guard(c.log, "effect", func() { c.perform(e) })
	}
	return again, nil
}

// allow asks the rules for something of p that has no outcome.
func (c *container) allow(p *process, kind lifecycle.Kind) error {
	_, err := c.ask(p, lifecycle.Event{Kind: kind, Proc: p.id})
	return err
}

// struck steps the rules with an OOM kill, which they do not refuse.
func (c *container) struck() { _, _ = c.step(lifecycle.Event{Kind: lifecycle.OutOfMemory}) }

// perform carries out one effect under c.mu: it begins the slow ones and waits for
// nothing.
func (c *container) perform(e lifecycle.Effect) {
	switch e.Kind {
	case lifecycle.Announce:
		c.announce(e)
	case lifecycle.Watch:
		p, o := c.proc(e.Proc), c.owe(e.Proc, watching)
		o.onFailure(func(ctx context.Context) error { return c.lostExit(ctx, p, o) })
		routine.Go(c.log, "watch", func() { c.watch(p, o) }, o)
	case lifecycle.Release:
		c.release(c.proc(e.Proc))
	case lifecycle.KillAll:
		o, failed := c.owe(initProc, killing), c.killings
		c.killings++
		routine.Go(c.log, "kill-all", func() { c.killAll(o, failed) }, o)
	case lifecycle.LastLook:
		o := c.owe(initProc, looking)
		routine.Go(c.log, "last look", func() { c.lastLook(o) }, o)
	case lifecycle.KillInit:
		c.killInit()
	case lifecycle.Forget:
		c.forget()
	}
}

// watch waits for the process's exit and reports it, the only one of that process.
func (c *container) watch(p *process, o *obligation) {
	if exit, ok := c.takeExit(context.Background(), p, o); ok {
		o.resolve(func(ev *lifecycle.Event) { ev.Exit = exit })
	}
}

// lostExit makes up for a watch that panicked, which may have been before the
// process died: it waits and does the rest once more.
func (c *container) lostExit(ctx context.Context, p *process, o *obligation) error {
	if exit, ok := c.takeExit(ctx, p, o); ok {
		o.failure.Exit = exit
	}
	return nil
}

// takeExit waits for the process's exit and does what comes before its
// announcement. It is false, and nothing is owed any more, if the shim ends and
// the process lives on.
func (c *container) takeExit(ctx context.Context, p *process, o *obligation) (lifecycle.Exit, bool) {
	exit, ok := c.awaitExit(ctx, p)
	if !ok {
		o.drop()
		return exit, false
	}
	failpoint.Point("exit: reaped")
	if p == c.init {
		c.keepExit(exit)
		failpoint.Point("exit: recorded")
	}
	p.stdioExited()
	return exit, true
}

// awaitExit waits for the process's exit. It is false if the shim ends and the
// process lives on.
func (c *container) awaitExit(ctx context.Context, p *process) (lifecycle.Exit, bool) {
	if p == c.init && len(c.oom) > 0 && p.child.Died(ctx) == nil {
		// The cgroup of a dead init may be removed at any moment.
		c.oom.Died()
	}
	exit, err := p.child.Wait(ctx)
	if p == c.init && err == nil && exit.Status == killedStatus && !c.sentKill.Load() {
		c.struckDead.Store(true)
	}
	if errors.Is(err, children.ErrClosed) {
		return lifecycle.Exit{}, false
	}
	if err != nil {
		// Nobody but the owner of the children reaps, so that this is a fault of
		// lark's. The process is gone all the same, and its status is unknown.
		c.log.Error("a child was lost", "process", p.id, "pid", p.child.Pid(), "error", err)
		exit = children.Exit{Status: unknownStatus, At: now()}
	}
	exit.At = c.notBefore(p, exit.At)
	return lifecycle.Exit(exit), true
}

// keepExit leaves init's exit in the bundle for the delete command, before it is
// announced. A full disk costs that record and nothing else.
func (c *container) keepExit(exit lifecycle.Exit) {
	err := c.service.reserve.during(func() error {
		return c.bundle.WriteInitExit(bundle.InitExit{PID: c.init.child.Pid(), Status: exit.Status, At: exit.At})
	})
	if err != nil {
		c.log.Warn("the exit status was not kept in the bundle", "error", err)
	}
}

// deleted says whether a process is being deleted or was; c.mu is held.
func (c *container) deleted(p lifecycle.Proc) bool {
	if p == initProc {
		s := c.machine.State()
		return s == lifecycle.Deleting || s == lifecycle.Gone
	}
	s := c.machine.ExecState(p)
	return s == lifecycle.ExecDeleting || s == lifecycle.ExecAbsent
}

// release lets the waiters of p go; c.mu is held.
func (c *container) release(p *process) {
	switch v, _ := c.machine.View(p.id); {
	case v.Status == lifecycle.StatusStopped:
		p.exit = v.Exit
	case c.deleted(p.id):
		p.fate = notFound("process %q was deleted before it ran", p.id)
	default:
		p.fate = fmt.Errorf("process %q was not started: %w", p.id, errdefs.ErrFailedPrecondition)
	}
	close(p.exited)
}

// killInit ends an init that was created and is to be deleted; c.mu is held, and
// one signal through a pidfd does not block.
func (c *container) killInit() {
	c.sentKill.Store(true)
	if err := c.init.child.Signal(sigkill); err != nil && !isGone(err) {
		c.log.Error("a created init cannot be killed", "pid", c.init.child.Pid(), "error", err)
	}
}

// killAll kills what a dead init left behind. If that fails the rules ask for it
// again, for as long as a process may live; failed is how often it did.
func (c *container) killAll(o *obligation, failed int) {
	if failed > 0 {
		time.Sleep(min(killAllPause<<min(failed-1, 16), killAllPauseMax))
	}
	ctx, cancel := context.WithTimeout(context.Background(), killAllTime)
	defer cancel()
	err := c.service.reserve.during(func() error { return c.killGroup(ctx) })
	failpoint.Step("kill-all: carried out")
	switch {
	case errors.Is(err, children.ErrClosed):
		o.drop() // the shim ends
	case err != nil && !errdefs.IsNotFound(err):
		c.log.Error("processes of a container whose init is dead cannot be killed; it is tried again", "failures", failed+1, "error", err)
	default:
		o.resolve(func(*lifecycle.Event) { c.killings = 0 })
	}
}

// forget drops the container; c.mu is held. Waiters of what never ran go on.
func (c *container) forget() {
	gone := notFound("container %q was deleted", c.id)
	abandon(c.init, gone)
	for _, p := range c.execs {
		abandon(p, gone)
	}
	c.service.dismiss(c)
	c.bundle.Close()
}

// abandon releases the waiters of a process whose exit will not come.
func abandon(p *process, fate error) {
	select {
	case <-p.exited:
	default:
		p.fate = fate
		close(p.exited)
	}
	if io := p.io.Load(); io != nil {
		// Copying may have to be ended, which can take its time.
		routine.Go(nil, "end of stdio", func() { io.Close() })
	}
}
