package oci

// call.go runs one call of the runtime from fork to reaping, within its bounds.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/failpoint"
)

// call is one command of the runtime and what it is given.
type call struct {
	op       string
	args     []string
	log      *os.File      // where the runtime logs, in memory; log.json if nil
	deadline time.Duration // 0: only the caller's context
	// launch bounds the time until the runtime's program runs; 0: the deadline does.
	launch time.Duration
	// attached: the call ends with the context too. The others are carried through:
	// what they make or remove would be left half done.
	attached bool
	// space is where the process that the call makes will live; nil if it makes
	// none.
	space *children.PIDNamespace
	// window is open while the call runs, if it makes a process, and pidFile is
	// where the runtime names the process.
	window  *children.Window
	pidFile string
	// io is the stdio of the container's process. Without it, or with a terminal
	// in it, the runtime's stderr is collected.
	io    IO
	stdin *os.File // closed by run
	// answer: stdout is the answer, and is wanted whole.
	answer bool
	// home is the directory of the runtime's state before the call.
	home place
}

// handsOn tells whether the runtime's stdio is the container's.
func (c *call) handsOn() bool { return c.io != nil && c.io.ConsolePath() == "" }

// outcome is a call that has exited with status 0.
type outcome struct {
	process *children.Process
	stdout  []byte
}

// run starts the call, waits for it and judges it. Whatever the outcome, the
// call itself has been reaped or, if the kernel does not let it die, left to its
// owner; and when it did not end of its own will, what it had forked was killed.
func (r *Runtime) run(ctx context.Context, c *call) (_ outcome, err error) {
	if c.home, err = r.home(c.op); err != nil {
		closeFile(c.stdin)
		return outcome{}, err
	}
	var logFrom int64
	if c.log == nil { // shared: only what comes from now on may be ours
		logFrom = r.files.size(r.logPath)
	}
	cmd := r.command(c)
	out, err := r.collect(cmd, c)
	if err != nil {
		closeFile(c.stdin)
		return outcome{}, systemError(c.op, "its output", err)
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	process, err := r.launch(ctx, c, cmd)
	closeFile(c.stdin)
	if err != nil {
		out.abandon()
		return outcome{}, err
	}
	out.started()
	panicked := true
	defer func() {
		if panicked {
			r.killTree(c, process)
			out.finish(0)
		}
	}()
	o, err := r.follow(ctx, c, process, out, logFrom)
	panicked = false
	return o, err
}

// follow waits for a call that was started, and judges it.
func (r *Runtime) follow(ctx context.Context, c *call, process *children.Process, out outputs, logFrom int64) (outcome, error) {
	failpoint.Point("runtime: running")
	if c.io != nil {
		if err := c.io.CloseAfterStart(); err != nil {
			r.log.Warn("closing the runtime's side of the stdio", "op", c.op, "error", err)
		}
	}
	exit, err := r.await(ctx, c, process)
	if err != nil {
		out.finish(0)
		return outcome{}, err
	}
	failpoint.Point("runtime: ended")
	if exit.Status != 0 {
		_, stderr := out.finish(outputGrace)
		return outcome{}, r.failure(c, process, exit, logFrom, stderr)
	}
	if !c.answer {
		out.finish(0) // it went well: nobody reads what it had to say
		return outcome{process: process}, nil
	}
	stdout, err := out.answer()
	if err != nil {
		return outcome{}, systemError(c.op, r.name, err)
	}
	return outcome{process: process, stdout: stdout}, nil
}

// command describes the process.
func (r *Runtime) command(c *call) *exec.Cmd {
	logPath := r.logPath
	if c.log != nil {
		logPath = memoryPath(c.log)
	}
	cmd := &exec.Cmd{
		Path: r.binary,
		Args: r.argv(logPath, c.args),
		Env:  r.env,
		Dir:  r.dir,
		// Pdeathsig: a runtime whose shim is dead has nobody to report to.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	if c.stdin != nil {
		cmd.Stdin = c.stdin
	}
	if c.handsOn() {
		c.io.Set(cmd)
	}
	return cmd
}

// bounded gives the context in which the call runs.
func (c *call) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if !c.attached {
		ctx = context.WithoutCancel(ctx)
	}
	if c.deadline > 0 {
		return context.WithTimeout(ctx, c.deadline)
	}
	return ctx, func() {}
}

// launch starts the call. One whose program does not run in time, because the
// kernel holds its execve up, is withdrawn: it never runs.
func (r *Runtime) launch(ctx context.Context, c *call, cmd *exec.Cmd) (*children.Process, error) {
	start := ctx
	if c.launch > 0 {
		var cancel context.CancelFunc
		start, cancel = context.WithTimeout(ctx, c.launch)
		defer cancel()
	}
	began := time.Now()
	p, err := r.owner.StartContext(start, cmd)
	switch {
	case err != nil:
		return nil, r.startError(c.op, err)
	case start.Err() == nil:
		return p, nil
	case ctx.Err() != nil:
		return nil, r.giveUp(c, p, context.Cause(ctx), "did not end", began)
	}
	return nil, r.giveUp(c, p, context.Cause(start), "was not executed", began)
}

// await waits for the exit of a call, and kills it when ctx ends.
func (r *Runtime) await(ctx context.Context, c *call, p *children.Process) (children.Exit, error) {
	began := time.Now()
	exit, err := p.Wait(ctx)
	if err == nil {
		return exit, nil
	}
	return children.Exit{}, r.giveUp(c, p, err, "did not end", began)
}

// giveUp kills a call and words the reason.
func (r *Runtime) giveUp(c *call, p *children.Process, cause error, failed string, began time.Time) error {
	doing := "waiting for " + r.name
	if errors.Is(cause, context.DeadlineExceeded) {
		doing = fmt.Sprintf("%s %s within %v and was killed", r.name, failed, time.Since(began).Round(time.Millisecond))
	}
	r.killTree(c, p)
	return systemError(c.op, doing, cause)
}

// killTree ends a call that did not end well, with everything it has left.
//
// A process that is in the pid file is the call's, in every pid mode: it is
// claimed before the window closes. What else the call has left is told by its
// pid namespace, and killed after the window has closed: what a window may still
// claim is not killed.
func (r *Runtime) killTree(c *call, p *children.Process) {
	err := p.KillTree(nil) // from here on the pid file does not change
	if c.window != nil {
		err = errors.Join(err, r.killNamed(c))
		c.window.Close()
	}
	if c.space != nil {
		err = errors.Join(err, p.KillTree(c.space))
	}
	if err != nil {
		r.log.Error("what a failed runtime call left behind may still run",
			"op", c.op, "pid", p.Pid(), "error", err)
	}
}

// killNamed kills the process that a failed call has written into its pid file,
// if it has written one. What cannot be claimed is not the call's.
func (r *Runtime) killNamed(c *call) error {
	pid, err := r.readPidFile(c.pidFile)
	if err != nil {
		return nil
	}
	child, err := c.window.Claim(pid)
	if err != nil {
		r.log.Debug("a failed runtime call has named a process that is not its own",
			"op", c.op, "pid", pid, "error", err)
		return nil
	}
	return child.KillTree()
}

// failure judges a call that exited with a status other than 0.
func (r *Runtime) failure(c *call, p *children.Process, exit children.Exit, logFrom int64, stderr []byte) error {
	e := &Error{Op: c.op, Status: exit.Status, class: errdefs.ErrUnknown}
	if bySignal(exit.Status) {
		// It had no chance to clean up.
		e.class = errdefs.ErrInternal
		e.Message = fmt.Sprintf("%s was killed by signal %d", r.name, exit.Status-signalBase)
	}
	if bySignal(exit.Status) || c.space != nil {
		// What it forked before is ours to end, also if it should have done so itself.
		r.killTree(c, p)
	}
	log, err := r.readLog(c, logFrom)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Warn("reading the runtime's log", "op", c.op, "error", err)
	}
	if said := reason(logErrors(log), stderr); said != "" {
		if e.Message != "" {
			said = clip(e.Message + ": " + said)
		}
		e.Message = said
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("%s did not terminate successfully: exit status %d", r.name, exit.Status)
	}
	return e
}

// readLog returns what the runtime has logged, or the end of it.
func (r *Runtime) readLog(c *call, from int64) ([]byte, error) {
	if c.log == nil {
		return r.files.readEnd(r.logPath, from, logTail)
	}
	return endOf(int(c.log.Fd()), 0, logTail)
}

// signalBase and lastSignal frame the statuses that mean death by a signal:
// 128+1 to 128+64. runc's own 255 is an ordinary failure.
const (
	signalBase = 128
	lastSignal = 64
)

func bySignal(status uint32) bool {
	return status > signalBase && status <= signalBase+lastSignal
}

// startError is a fork or exec that failed. The kernel names neither of the two
// that may be missing, so both are looked for.
func (r *Runtime) startError(op string, err error) error {
	what := "starting " + r.name
	if fi, statErr := os.Stat(r.dir); statErr == nil && !fi.IsDir() || errors.Is(statErr, os.ErrNotExist) {
		what += " in " + r.dir + ", which is not there"
	} else if _, statErr := os.Stat(r.binary); errors.Is(statErr, os.ErrNotExist) {
		what += ": " + r.binary + " is not there"
	}
	return systemError(op, what, err)
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

// outputs are the collectors of one call; a nil one collects nothing.
type outputs struct{ stdout, stderr *collector }

// collect connects what the runtime itself writes. With the stdio of a container
// in its hands there is nothing to collect: the runtime's stderr is the
// container's.
func (r *Runtime) collect(cmd *exec.Cmd, c *call) (o outputs, err error) {
	if c.handsOn() {
		return o, nil
	}
	if o.stderr, err = newCollector(r.files, stderrTail, true); err != nil {
		return o, err
	}
	cmd.Stderr = o.stderr.w
	if !c.answer {
		cmd.Stdout = o.stderr.w
		return o, nil
	}
	if o.stdout, err = newCollector(r.files, stdoutMax, false); err != nil {
		o.abandon()
		return outputs{}, err
	}
	cmd.Stdout = o.stdout.w
	return o, nil
}

func (o outputs) each(fn func(*collector)) {
	for _, c := range []*collector{o.stdout, o.stderr} {
		if c != nil {
			fn(c)
		}
	}
}

func (o outputs) started() { o.each((*collector).started) }
func (o outputs) abandon() { o.each((*collector).abandon) }

// finish ends the collecting and returns what there is.
func (o outputs) finish(grace time.Duration) (stdout, stderr []byte) {
	if o.stdout != nil {
		stdout, _ = o.stdout.finish(grace)
	}
	if o.stderr != nil {
		stderr, _ = o.stderr.finish(grace)
	}
	return stdout, stderr
}

// answer ends the collecting and returns the whole of stdout.
func (o outputs) answer() ([]byte, error) {
	o.stderr.finish(0)
	data, whole := o.stdout.finish(outputGrace)
	if !whole {
		return nil, fmt.Errorf("the answer is incomplete after %d bytes", len(data))
	}
	return data, nil
}
