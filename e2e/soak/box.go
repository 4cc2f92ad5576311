package soak

// The life of one container.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/internal/order"
)

const (
	killed = 137
	// anyStatus: the status depends on who was faster.
	anyStatus = -1
	// hungryLimit is what a hungry container may have, hungryBlock what it takes.
	hungryLimit = 16 << 20
	hungryBlock = "256M"
	// lastingFor is the longest that a lasting exec runs before it is killed.
	lastingFor = 300 * time.Millisecond
	// spoken is written by a speaker, twice.
	spoken = "to be or not to be\n"
)

var forever = []string{"sleep", "100000"}

// box is one container.
type box struct {
	s      *soak
	plan   boxPlan
	id     string
	group  string // its shim's name
	number int    // of the containerd that made it
	check  *order.Checker

	pid    uint32
	made   bool
	ending atomic.Bool   // its init has been or is being killed
	lost   atomic.Bool   // its shim has been or is being killed
	gone   atomic.Bool   // containerd has cleared it away
	ready  atomic.Bool   // the saboteur may choose it
	done   atomic.Bool   // its task was deleted
	buried chan struct{} // closed when what its dead shim left was looked at
	last   atomic.Uint32 // pid of a lasting exec
}

func (b *box) over() bool { return b.lost.Load() || b.gone.Load() }

// dying tolerates what an init that is being killed refuses.
func (b *box) dying(o outcome) bool {
	return b.ending.Load() && (errdefs.IsNotFound(o.err) || errdefs.IsFailedPrecondition(o.err))
}

// create makes and starts the container.
func (b *box) create(ctx context.Context) bool {
	key := "io.containerd.runc.v2.group"
	if b.plan.sandbox {
		key = "io.kubernetes.cri.sandbox-id"
	}
	o := daemon.SpecOpts{Args: forever, HostPID: b.plan.host, Annotations: map[string]string{key: b.group}}
	if b.plan.hungry {
		o.Args = []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=" + hungryBlock}
		limit := int64(hungryLimit)
		o.Mutate = func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
		}
	}
	c := b.s.c
	b.number = b.s.up.current()
	if !b.s.call(ctx, nil, "record of "+b.id, nil, func(ctx context.Context) error {
		return c.CreateContainer(ctx, b.id, b.s.runtime, b.s.d.Spec(b.id, o))
	}).ok {
		return false
	}
	got := b.s.call(ctx, b, "create of "+b.id, nil, func(ctx context.Context) (err error) {
		b.pid, err = c.CreateTask(ctx, b.id, daemon.BindRootfs(b.s.rootfs), daemon.Stdio{})
		return err
	})
	b.answer(got, order.Answer{Call: order.CallCreate, Pid: b.pid})
	if !got.ok {
		return false
	}
	b.made = true
	if b.plan.hungry {
		b.ending.Store(true)
		b.s.count("out of memory")
	}
	return b.start(ctx, "", nil)
}

// answer tells the checker what is certain.
func (b *box) answer(o outcome, a order.Answer) {
	if o.sure && o.answered {
		a.Container, a.Failed = b.id, !o.ok
		b.check.Answered(a)
	}
}

// start starts the init or an exec. If containerd died meanwhile, the start may
// have had its effect: then it is asked for again, which must not start it twice.
func (b *box) start(ctx context.Context, exec string, fine func(outcome) bool) bool {
	var pid uint32
	what := "start of " + b.name(exec)
	accept := func(o outcome) bool { return !o.sure && errdefs.IsFailedPrecondition(o.err) || fine != nil && fine(o) }
	o := b.s.call(ctx, b, what, accept, func(ctx context.Context) (err error) {
		pid, err = b.s.c.Start(ctx, b.id, exec)
		return err
	})
	b.answer(o, order.Answer{Call: order.CallStart, Exec: exec, Pid: pid})
	if o.ok || o.sure || b.over() || !errdefs.IsFailedPrecondition(o.err) || fine != nil && fine(o) {
		return o.ok
	}
	return b.begun(ctx, exec)
}

// begun waits until a start that was cut off has come to its end.
func (b *box) begun(ctx context.Context, exec string) bool {
	ctx, cancel := context.WithTimeout(ctx, b.s.cfg.Bound)
	defer cancel()
	for ctx.Err() == nil {
		var state string
		o := b.s.call(ctx, b, "state of "+b.name(exec), b.dying, func(ctx context.Context) error {
			p, err := b.s.c.Status(ctx, b.id, exec)
			state = p.GetStatus().String()
			return err
		})
		if !o.ok || state == "RUNNING" || state == "STOPPED" {
			return o.ok
		}
		b.s.sleep(ctx, poll)
	}
	b.s.problem("start of %s, which was asked for when containerd died, has not come to an end", b.name(exec))
	return false
}

func (b *box) name(exec string) string {
	if exec == "" {
		return b.id
	}
	return b.id + "/" + exec
}

// wait waits for the end and looks at the status.
func (b *box) wait(ctx context.Context, exec string, status int, fine func(outcome) bool) bool {
	var e daemon.Exit
	o := b.s.call(ctx, b, "wait for "+b.name(exec), fine, func(ctx context.Context) (err error) {
		e, err = b.s.c.Wait(ctx, b.id, exec)
		return err
	})
	if !o.ok || b.lost.Load() {
		return false
	}
	b.check.Answered(order.Answer{Call: order.CallWait, Container: b.id, Exec: exec, Status: e.Status, At: e.At})
	if status != anyStatus && e.Status != uint32(status) && (exec == "" || !b.ending.Load()) {
		b.s.problem("wait for %s answered status %d, it was %d", b.name(exec), e.Status, status)
	}
	return true
}

// live is all that the container does once it runs.
func (b *box) live(ctx context.Context, seed uint64) {
	defer b.forget(ctx)
	if !b.made {
		return
	}
	r := rand.New(rand.NewPCG(seed, 1))
	if !b.plan.hungry {
		b.ready.Store(true)
		for i, storm := range b.plan.storms {
			var all sync.WaitGroup
			for k, what := range storm {
				span := time.Duration(r.Int64N(int64(lastingFor)))
				all.Go(func() { b.errand(ctx, fmt.Sprintf("e%d-%d", i, k), what, k, span) })
			}
			all.Wait()
			if b.plan.pauses[i] && !b.over() && !b.ending.Load() {
				b.pause(ctx)
			}
		}
	}
	b.end(ctx)
}

// pause pauses and resumes.
func (b *box) pause(ctx context.Context) {
	fine := func(o outcome) bool { return b.dying(o) || !o.sure && errdefs.IsFailedPrecondition(o.err) }
	b.s.call(ctx, b, "pause of "+b.id, fine, func(ctx context.Context) error {
		_, err := b.s.c.Tasks.Pause(b.s.c.In(ctx), &tasksapi.PauseTaskRequest{ContainerID: b.id})
		return errgrpc.ToNative(err)
	})
	b.s.call(ctx, b, "resume of "+b.id, fine, func(ctx context.Context) error {
		_, err := b.s.c.Tasks.Resume(b.s.c.In(ctx), &tasksapi.ResumeTaskRequest{ContainerID: b.id})
		return errgrpc.ToNative(err)
	})
	b.s.count("paused")
}

// end kills the init, waits for it and deletes the task.
func (b *box) end(ctx context.Context) {
	b.ready.Store(false)
	b.ending.Store(true)
	if !b.plan.hungry && !b.over() {
		b.kill(ctx, "")
	}
	if !b.over() {
		b.wait(ctx, "", killed, nil)
	}
	if b.over() {
		return
	}
	// containerd's own delete has halves: it asks the shim, ends it and removes the
	// bundle. What is left when it dies in between is its own affair.
	b.s.whole.RLock()
	defer b.s.whole.RUnlock()
	var e daemon.Exit
	o := b.s.call(ctx, b, "delete of "+b.id, nil, func(ctx context.Context) (err error) {
		e, err = b.s.c.Delete(ctx, b.id, "")
		return err
	})
	if !b.over() {
		b.answer(o, order.Answer{Call: order.CallDelete, Pid: e.Pid, Status: e.Status, At: e.At})
	}
	b.done.Store(true)
}

func (b *box) kill(ctx context.Context, exec string) {
	// Others may have killed it.
	fine := func(o outcome) bool { return errdefs.IsNotFound(o.err) || exec != "" && b.dying(o) }
	b.s.call(ctx, b, "kill of "+b.name(exec), fine, func(ctx context.Context) error {
		return b.s.c.Kill(ctx, b.id, exec, uint32(unix.SIGKILL), false)
	})
}

// forget deletes the record, once it was seen what a dead shim has left.
func (b *box) forget(ctx context.Context) {
	if b.lost.Load() {
		select {
		case <-b.buried:
		case <-ctx.Done():
		}
	}
	fine := func(o outcome) bool { return errdefs.IsNotFound(o.err) && (!o.sure || !b.made) }
	b.s.call(ctx, nil, "deleting the record of "+b.id, fine, func(ctx context.Context) error {
		return b.s.c.DeleteContainer(ctx, b.id)
	})
}

// errand takes one exec from its adding to its delete.
func (b *box) errand(ctx context.Context, exec string, what errand, code int, span time.Duration) {
	args, status := arguments(what, code)
	var io daemon.Stdio
	if what == speaker {
		f, err := openPipe(filepath.Join(b.s.dir, b.id+"-"+exec))
		if err != nil {
			b.s.problem("a named pipe for %s: %v", b.name(exec), err)
			return
		}
		defer f.close()
		io.Stdout = f.path
		defer func() { b.heard(exec, f) }()
	}
	fine := func(o outcome) bool { return b.dying(o) || !o.sure && errdefs.IsAlreadyExists(o.err) }
	o := b.s.call(ctx, b, "exec of "+b.name(exec), fine, func(ctx context.Context) error {
		return b.s.c.Exec(ctx, b.id, exec, daemon.Process(args...), io)
	})
	b.answer(o, order.Answer{Call: order.CallExec, Exec: exec})
	if b.over() || b.dying(o) || !o.ok && o.sure {
		return
	}
	mayFail := b.dying
	if what == absent {
		mayFail = func(o outcome) bool { return o.answered }
	}
	started := b.start(ctx, exec, mayFail)
	if started && what == lasting {
		b.strike(ctx, exec, span)
	}
	if started && what != absent && !b.over() {
		b.wait(ctx, exec, status, b.dying)
	}
	if started && what == absent && !b.over() && !b.ending.Load() {
		b.s.problem("start of %s succeeded, there is no such program", b.name(exec))
	}
	b.deleteExec(ctx, exec, started)
}

func arguments(what errand, code int) (args []string, status int) {
	switch what {
	case orphans:
		return []string{"sh", "-c", fmt.Sprintf("true & usleep 2000 & exit %d", code)}, code
	case leaver:
		return []string{"sh", "-c", fmt.Sprintf("sleep 100000 & setsid sleep 100000 & exit %d", code)}, code
	case speaker:
		return []string{"sh", "-c", fmt.Sprintf("echo %s; echo %s; exit %d", spoken[:len(spoken)-1], spoken[:len(spoken)-1], code)}, code
	case lasting:
		return forever, killed
	case absent:
		return []string{"/no/such/program"}, anyStatus
	}
	return []string{"sh", "-c", fmt.Sprintf("exit %d", code)}, code
}

// strike kills a lasting exec, after a while in which the saboteur may do it.
func (b *box) strike(ctx context.Context, exec string, span time.Duration) {
	o := b.s.call(ctx, b, "state of "+b.name(exec), b.dying, func(ctx context.Context) error {
		p, err := b.s.c.Status(ctx, b.id, exec)
		b.last.Store(p.GetPid())
		return err
	})
	if !o.ok {
		return
	}
	b.s.sleep(ctx, span)
	b.last.Store(0)
	if !b.over() {
		b.kill(ctx, exec)
	}
}

func (b *box) deleteExec(ctx context.Context, exec string, started bool) {
	if b.over() {
		return
	}
	var e daemon.Exit
	fine := func(o outcome) bool { return b.dying(o) || !o.sure && errdefs.IsNotFound(o.err) }
	o := b.s.call(ctx, b, "delete of "+b.name(exec), fine, func(ctx context.Context) (err error) {
		e, err = b.s.c.Delete(ctx, b.id, exec)
		return err
	})
	if started && o.ok {
		b.answer(o, order.Answer{Call: order.CallDelete, Exec: exec, Pid: e.Pid, Status: e.Status, At: e.At})
	}
}

// pipe is a named pipe of which we are the reader.
type pipe struct {
	path string
	fd   int
}

// openPipe makes and opens one. Non-blocking: neither the open waits for a
// writer, nor the last read for more.
func openPipe(path string) (*pipe, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	return &pipe{path: path, fd: fd}, err
}

func (f *pipe) close() {
	unix.Close(f.fd)
	os.Remove(f.path)
}

// heard looks at what has come out of a speaker by the time its delete was
// answered (I14), if nothing came between.
func (b *box) heard(exec string, f *pipe) {
	buf := make([]byte, 4<<10)
	n, err := unix.Read(f.fd, buf)
	if want := spoken + spoken; !b.over() && !b.ending.Load() && !slices.Equal(buf[:max(n, 0)], []byte(want)) {
		b.s.problem("output of %s: %d of %d bytes when delete was answered, %v", b.name(exec), n, len(want), err)
	}
}
