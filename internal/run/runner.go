package run

// The runner drives one container and its execs through the task API.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/shimclient"
)

// runner is one run. Its fields are set before its goroutines begin, except those
// behind mu.
type runner struct {
	o       Options
	id      string
	spec    *specs.Spec
	shim    *shimclient.Shim
	checker *order.Checker
	screen  *screen
	begin   time.Time
	arrived chan struct{} // one token: an event has come

	mu   sync.Mutex
	out  Outcome
	dead bool // init's Wait was answered
}

func newRunner(o Options, id string, s *specs.Spec) *runner {
	r := &runner{o: o, id: id, spec: s, checker: order.New(), begin: time.Now(), arrived: make(chan struct{}, 1)}
	r.screen = newScreen(o)
	r.out.ID = id
	return r
}

// observe takes an event from the sink, which calls it for one event at a time.
func (r *runner) observe(e shimclient.Event) {
	broken := r.checker.Observe(e.Task)
	r.screen.event(r.line(e, broken))
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

func (r *runner) outcome() *Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.out
	out.Violations = r.checker.Finish()
	out.Counts = r.checker.Counts()
	return &out
}

// run takes the container from Create to Delete.
func (r *runner) run(ctx context.Context, in Interrupt, b *shimclient.Bundle) error {
	streams, err := r.openStreams(b)
	if err != nil {
		return err
	}
	defer streams.close()
	if err := r.create(ctx, b, streams); err != nil {
		return err
	}
	ended, cancel := context.WithCancel(ctx) // ends with init
	defer cancel()
	var side sync.WaitGroup
	side.Go(func() { r.killWhenAsked(ended, in) })
	waited := make(chan error, 1)
	go func() { waited <- r.wait(ctx) }()
	startErr := r.start(ctx, streams)
	if startErr == nil {
		streams.begin(ended, r)
		side.Go(func() { r.execs(ctx, ended) })
	} else {
		r.kill(ctx) // what never started is killed, or Delete would have to
	}
	select {
	case err = <-waited:
	case <-r.shim.Gone():
		err = fmt.Errorf("the shim ended before its container: %s", lastWords(b))
	}
	cancel()
	side.Wait()
	if err == nil {
		err = r.delete(ctx)
	}
	streams.drain(ctx)
	r.screen.release()
	r.lastEvents(ctx)
	return errors.Join(r.excuse(startErr), err, r.screen.outputLost())
}

func lastWords(b *shimclient.Bundle) string {
	if log := b.Log(); log != "" {
		return log
	}
	return "it logged nothing"
}

// excuse forgives a start that failed because the user had the container killed.
func (r *runner) excuse(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out.Interrupted {
		return nil
	}
	return err
}

func (r *runner) create(ctx context.Context, b *shimclient.Bundle, s *streams) error {
	opts, err := r.shim.Options()
	if err != nil {
		return err
	}
	resp, err := r.shim.Create(ctx, &taskapi.CreateTaskRequest{
		ID: r.id, Bundle: b.Path, Terminal: r.o.Terminal, Options: opts,
		Stdin: s.stdinPath(), Stdout: s.stdoutPath(), Stderr: s.stderrPath(),
	})
	r.answered(order.Answer{Call: order.CallCreate, Pid: resp.GetPid()}, err)
	if err != nil {
		return fmt.Errorf("create the container: %w", err)
	}
	s.attached()
	return nil
}

func (r *runner) start(ctx context.Context, s *streams) error {
	resp, err := r.shim.Start(ctx, &taskapi.StartRequest{ID: r.id})
	r.answered(order.Answer{Call: order.CallStart, Pid: resp.GetPid()}, err)
	if err != nil {
		return fmt.Errorf("start the container: %w", err)
	}
	return nil
}

// wait waits for init's end and notes its status.
func (r *runner) wait(ctx context.Context) error {
	resp, err := r.shim.Wait(ctx, &taskapi.WaitRequest{ID: r.id})
	if err != nil {
		return fmt.Errorf("wait for the container: %w", err)
	}
	r.answered(order.Answer{Call: order.CallWait, Status: resp.ExitStatus, At: resp.ExitedAt.AsTime()}, nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead, r.out.Status = true, resp.ExitStatus
	return nil
}

func (r *runner) delete(ctx context.Context) error {
	resp, err := r.shim.Delete(ctx, &taskapi.DeleteRequest{ID: r.id})
	if err != nil {
		return fmt.Errorf("delete the container: %w", err)
	}
	r.answered(order.Answer{Call: order.CallDelete, Pid: resp.Pid, Status: resp.ExitStatus, At: resp.ExitedAt.AsTime()}, nil)
	return nil
}

// killWhenAsked waits for the user's interrupt, or for output that cannot be
// written, for as long as init lives.
func (r *runner) killWhenAsked(ended context.Context, in Interrupt) {
	select {
	case <-ended.Done():
		return
	case <-in.Kill:
	case <-r.screen.lost:
	}
	r.mu.Lock()
	r.out.Interrupted = true
	r.mu.Unlock()
	r.kill(ended)
}

// kill kills init, and repeats it until init is dead: a kill between Create and Start
// may come too early for the runtime. ctx ends with init.
func (r *runner) kill(ctx context.Context) {
	for ctx.Err() == nil && !r.isDead() {
		call, cancel := context.WithTimeout(ctx, killCallTimeout)
		err := r.shim.Kill(call, &taskapi.KillRequest{ID: r.id, Signal: uint32(unix.SIGKILL), All: r.o.HostPID})
		cancel()
		if errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) {
			return
		}
		t := time.NewTimer(killRetry)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

func (r *runner) isDead() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dead
}

// answered tells the checker what a call was answered. An answer that our own context
// cut short says nothing.
func (r *runner) answered(a order.Answer, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errdefs.IsUnavailable(err) {
		return
	}
	a.Container, a.Failed = r.id, err != nil
	r.checker.Answered(a)
}

// lastEvents waits for what is still to come, within its bound.
func (r *runner) lastEvents(ctx context.Context) {
	limit := time.NewTimer(lastEventsTimeout)
	defer limit.Stop()
	for len(r.checker.Pending()) > 0 {
		select {
		case <-r.arrived:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		case <-r.shim.Gone():
			return
		}
	}
}
