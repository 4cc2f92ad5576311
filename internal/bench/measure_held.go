package bench

// What one slow execve costs everything else: the runtime's program is held on its
// way into an exec, as an on-access scanner does, and meanwhile other processes of
// the same container and of another one are killed, waited for and looked at. Shown
// is how much longer that takes than without.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/heldexec"
	"github.com/larkshim/lark/internal/shimclient"
)

const measureHeld = "held-execve"

// withHeld: only where it is named. It takes root, and most of its time it waits.
func withHeld(b *bench, rt Runtime) bool {
	return slices.Contains(b.cfg.Only, measureHeld) && firstOnly(b, rt)
}

func heldSteps(b *bench) int { return b.rounds(heldRounds) * b.columnCount(false) }

func runHeld(ctx context.Context, b *bench, rt Runtime) error {
	hold := heldFor
	if b.cfg.Quick {
		hold /= quickDivisor
	}
	// Only this program is held, not the runtime of everybody else.
	own := rt
	own.Path = filepath.Join(b.base.Dir, filepath.Base(rt.Path))
	if err := copyProgram(rt.Path, own.Path); err != nil {
		return err
	}
	gate, err := heldexec.Open(own.Path)
	if err != nil {
		return fmt.Errorf("holding an execve: %w", err)
	}
	work := func(col column) error {
		h := &heldRun{b: b, rt: own, gate: gate, hold: hold}
		err := h.round(ctx, col)
		b.progress.step()
		return err
	}
	err = b.alternate(ctx, rt, b.rounds(heldRounds), false, "a held execve", work)
	return errors.Join(err, gate.Close())
}

// heldRun is one shim with an execve that is held.
type heldRun struct {
	b    *bench
	rt   Runtime
	gate *heldexec.Gate
	hold time.Duration
	st   *stage
}

// latencies are how long the calls took, by the name of the metric.
type latencies map[string]time.Duration

// heldMetrics are the calls, and their names.
var heldMetrics = [][2]string{
	{"kill-exec", "Kill of another exec"},
	{"wait-exec", "Wait of the killed exec"},
	{"kill-init", "Kill of another container's init, by the runtime"},
	{"wait-init", "Wait of the killed init"},
	{"state", "State, the slowest"},
}

func (h *heldRun) round(ctx context.Context, col column) (err error) {
	if h.st, err = h.b.newRunningStage(ctx, *col.shim, h.rt); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.st.close(ctx)) }()
	free, err := h.victims(ctx, "free")
	if err != nil {
		return err
	}
	held, err := h.victims(ctx, "held")
	if err != nil {
		return err
	}
	without, err := free.kill(ctx, h.st, 0)
	if err != nil {
		return err
	}
	with, err := h.duringHold(ctx, held)
	if err != nil {
		return err
	}
	for _, m := range heldMetrics {
		more := max(with[m[0]]-without[m[0]], leastHeld)
		h.b.result.add(Key{Measure: measureHeld, Metric: m[0], Runtime: h.rt.Name}, col,
			unit{m[1] + ", longer while an execve is held", "ms", Lower}, milliseconds(more))
	}
	return nil
}

// duringHold kills the victims while the execve of a further exec is held.
func (h *heldRun) duringHold(ctx context.Context, v *victims) (latencies, error) {
	process, err := h.st.process("true")
	if err != nil {
		return nil, err
	}
	h.gate.Hold(1)
	slow := make(chan error, 1)
	go func() { slow <- h.st.exec(ctx, process) }()
	var e *heldexec.Execution
	select {
	case e = <-h.gate.Held():
	case err := <-slow:
		return nil, fmt.Errorf("the runtime was not executed: %w", err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	release := time.AfterFunc(h.hold, e.Release)
	defer release.Stop()
	took, err := v.kill(ctx, h.st, h.hold)
	e.Release()
	return took, errors.Join(err, <-slow)
}

// victims are an exec of the stage's container and a container beside it.
type victims struct {
	exec  string
	other *shimclient.Bundle
}

func (h *heldRun) victims(ctx context.Context, suffix string) (*victims, error) {
	v := &victims{exec: "victim-" + suffix}
	process, err := h.st.process("sleep", "2147483647")
	if err != nil {
		return nil, err
	}
	if err := h.st.startExec(ctx, v.exec, process, "", ""); err != nil {
		return nil, err
	}
	if v.other, err = h.st.home.NewBundle(h.st.name(suffix), h.st.spec(suffix, "sleep", "2147483647")); err != nil {
		return nil, err
	}
	h.st.shim.Adopt(v.other)
	return v, h.st.up(ctx, v.other)
}

// kill kills both and waits for them, and asks for states: a number of them, and
// as many as go into the time that is left of the whole.
func (v *victims) kill(ctx context.Context, st *stage, whole time.Duration) (latencies, error) {
	took, began := latencies{}, time.Now()
	timed := func(name string, call func() error) error {
		start := time.Now()
		if err := call(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		took[name] = max(took[name], time.Since(start))
		return nil
	}
	targets := []struct{ name, id, exec string }{{"exec", st.bundle.ID, v.exec}, {"init", v.other.ID, ""}}
	for _, x := range targets {
		err := timed("kill-"+x.name, func() error {
			return st.shim.Kill(ctx, &taskapi.KillRequest{ID: x.id, ExecID: x.exec, Signal: uint32(unix.SIGKILL)})
		})
		if err != nil {
			return nil, err
		}
		err = timed("wait-"+x.name, func() error {
			_, err := st.shim.Wait(ctx, &taskapi.WaitRequest{ID: x.id, ExecID: x.exec})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for n := 0; n < heldStates || time.Since(began) < whole-heldPause; n++ {
		err := timed("state", func() error {
			_, err := st.shim.State(ctx, &taskapi.StateRequest{ID: targets[n%2].id})
			return err
		})
		if err != nil {
			return nil, err
		}
		if err := rest(ctx, heldPause); err != nil {
			return nil, err
		}
	}
	for _, x := range targets {
		if _, err := st.shim.Delete(ctx, &taskapi.DeleteRequest{ID: x.id, ExecID: x.exec}); err != nil {
			return nil, fmt.Errorf("delete: %w", err)
		}
	}
	return took, nil
}

// copyProgram copies an executable file.
func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
