package bench

// The cost of one exit beside 1 to 4,096 running processes: from the death of a process to
// its exit event, the shim's CPU by the scheduler's own count.

import (
	"context"
	"errors"
	"fmt"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/shimclient"
)

func exitSteps(b *bench) int {
	return b.rounds(exitRounds) * b.columnCount(false) * len(running(b.cfg.Quick))
}

func runExits(ctx context.Context, b *bench, rt Runtime) error {
	return b.alternate(ctx, rt, b.rounds(exitRounds), false, "exits beside many processes", func(col column) (err error) {
		st, err := b.newRunningStage(ctx, *col.shim, rt)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.close(ctx)) }()
		process, err := st.process("sleep", "2147483647")
		if err != nil {
			return err
		}
		up := 0
		for _, level := range running(b.cfg.Quick) {
			// The one whose exit is measured counts among the running.
			if _, err := runBatch(ctx, level-1-up, startersAtOnce, func(ctx context.Context, _ int) error {
				return st.startExec(ctx, st.execID(), process, "", "")
			}); err != nil {
				return err
			}
			up = max(up, level-1)
			if err := st.exitLevel(ctx, col, process, level); err != nil {
				return err
			}
		}
		return nil
	})
}

// exitLevel measures exits one by one, with as many processes running.
func (st *stage) exitLevel(ctx context.Context, col column, process *anypb.Any, level int) error {
	exits := make(chan string, 1)
	fn := func(e shimclient.Event) {
		if e.Task.Kind == order.Exited {
			exits <- e.Task.Exec
		}
	}
	st.events.Store(&fn)
	defer st.events.Store(nil)
	for range exitsPerLevel {
		cpu, wall, err := st.oneExit(ctx, process, exits)
		if err != nil {
			return err
		}
		k := Key{Measure: "exit", Runtime: st.rt.Name, Param: level}
		st.b.result.add(k.of("cpu"), col, unit{"shim CPU of one exit", "µs", Lower}, float64(cpu)/float64(time.Microsecond))
		st.b.result.add(k.of("latency"), col, unit{"from a process's death to its exit event", "ms", Lower}, milliseconds(wall))
	}
	st.b.progress.step()
	return nil
}

// oneExit starts a process, and measures from its death to its event.
func (st *stage) oneExit(ctx context.Context, process *anypb.Any, exits <-chan string) (cpu, wall time.Duration, err error) {
	id := st.execID()
	req := &taskapi.ExecProcessRequest{ID: st.bundle.ID, ExecID: id, Spec: process}
	if err := st.shim.Exec(ctx, req); err != nil {
		return 0, 0, err
	}
	r, err := st.shim.Task.Start(ctx, &taskapi.StartRequest{ID: st.bundle.ID, ExecID: id})
	if err != nil {
		return 0, 0, err
	}
	before, err := fineCPUOf(st.shim.Pid)
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	// The pid is that of a process that we have just started and nobody has reaped.
	if err := unix.Kill(int(r.Pid), unix.SIGKILL); err != nil {
		return 0, 0, err
	}
	select {
	case got := <-exits:
		if got != id {
			return 0, 0, fmt.Errorf("exit of %q, not of %q", got, id)
		}
	case <-time.After(callTimeout):
		return 0, 0, fmt.Errorf("no exit event of %s", id)
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	wall = time.Since(begin)
	if _, err := st.shim.Wait(ctx, &taskapi.WaitRequest{ID: st.bundle.ID, ExecID: id}); err != nil {
		return 0, 0, err
	}
	after, err := fineCPUOf(st.shim.Pid)
	if err != nil {
		return 0, 0, err
	}
	_, err = st.shim.Delete(ctx, &taskapi.DeleteRequest{ID: st.bundle.ID, ExecID: id})
	return after - before, wall, err
}
