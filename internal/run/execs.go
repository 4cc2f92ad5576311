package run

// The execs of a run: N processes beside init, many at once.

import (
	"context"
	"errors"
	"fmt"
	"sync"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/shimclient"
)

// execs runs all execs and then ends the container. ended is done when init is, ctx when
// nothing is to be waited for: execs outlive init's end, as their exits are part of what
// is checked, and are ended by the shim's answers. Those that are refused once init is
// dead are what a dying container answers, not failures.
func (r *runner) execs(ctx, ended context.Context) {
	if r.o.Execs == 0 {
		return
	}
	parallel := r.o.Parallel
	if parallel <= 0 {
		parallel = r.o.Execs
	}
	turns := make(chan struct{}, parallel)
	var all sync.WaitGroup
	for i := range r.o.Execs {
		turns <- struct{}{}
		if r.isDead() {
			break
		}
		all.Go(func() {
			defer func() { <-turns }()
			if err := r.exec(ctx, fmt.Sprintf("exec-%d", i+1)); err != nil {
				r.execFailed(err)
			}
		})
	}
	all.Wait()
	r.mu.Lock()
	r.out.Ended = !r.dead && !r.out.Interrupted
	r.mu.Unlock()
	r.kill(ended)
}

// exec takes one exec from Exec to Delete.
func (r *runner) exec(ctx context.Context, id string) error {
	p := *r.spec.Process
	p.Args, p.Terminal = r.o.ExecArgs, false
	spec, err := shimclient.ProcessSpec(&p)
	if err != nil {
		return err
	}
	err = r.shim.Exec(ctx, &taskapi.ExecProcessRequest{ID: r.id, ExecID: id, Spec: spec})
	r.answered(order.Answer{Call: order.CallExec, Exec: id}, err)
	if err != nil {
		return err
	}
	started, err := r.shim.Start(ctx, &taskapi.StartRequest{ID: r.id, ExecID: id})
	r.answered(order.Answer{Call: order.CallStart, Exec: id, Pid: started.GetPid()}, err)
	if err == nil {
		var waited *taskapi.WaitResponse
		if waited, err = r.shim.Wait(ctx, &taskapi.WaitRequest{ID: r.id, ExecID: id}); err == nil {
			r.answered(order.Answer{Call: order.CallWait, Exec: id, Status: waited.ExitStatus, At: waited.ExitedAt.AsTime()}, nil)
		}
	}
	deleted, delErr := r.shim.Delete(ctx, &taskapi.DeleteRequest{ID: r.id, ExecID: id})
	if delErr == nil && err == nil {
		r.answered(order.Answer{Call: order.CallDelete, Exec: id, Pid: deleted.Pid, Status: deleted.ExitStatus, At: deleted.ExitedAt.AsTime()}, nil)
	}
	if errdefs.IsNotFound(delErr) {
		delErr = nil // the container was deleted first, and its execs with it
	}
	return errors.Join(err, delErr)
}

// execFailed counts an exec that failed although the container lived.
func (r *runner) execFailed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead || r.out.Interrupted {
		return
	}
	r.out.FailedExecs++
	if r.out.FailedExecs == 1 {
		r.screen.note(fmt.Sprintf("an exec failed: %v", err))
	}
}
