package task

// The outcomes that the rules are owed. A StartAsked that the rules have accepted
// and that is never followed by Started or StartFailed leaves the exec "starting"
// for ever, holds init's exit and has every Delete refused. So what is accepted
// gives back an obligation, the only thing that can report an outcome, and whose
// Close, deferred at once, reports the failure if nothing else was reported:
// after an error, an early return, a panic. Only this file steps the machine with
// outcomes; a test over the source says so.

import (
	"context"
	"errors"
	"time"

	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/routine"
	"github.com/larkshim/lark/lifecycle"
)

// outcome is how something ends: well, or not.
type outcome struct{ success, failure lifecycle.Kind }

// asked has the outcomes of what a client may ask and the rules accept.
var asked = map[lifecycle.Kind]outcome{
	lifecycle.CreateAsked: {lifecycle.Created, lifecycle.CreateFailed},
	lifecycle.StartAsked:  {lifecycle.Started, lifecycle.StartFailed},
	lifecycle.PauseAsked:  {lifecycle.Paused, lifecycle.PauseFailed},
	lifecycle.ResumeAsked: {lifecycle.Resumed, lifecycle.ResumeFailed},
	lifecycle.DeleteAsked: {lifecycle.Deleted, lifecycle.DeleteFailed},
}

// The outcomes of the slow effects. A last look that failed has found nothing,
// and an exit comes in any case.
var (
	execDelete = outcome{lifecycle.Deleted, lifecycle.Deleted}
	killing    = outcome{lifecycle.KillAllDone, lifecycle.KillAllFailed}
	looking    = outcome{lifecycle.Looked, lifecycle.Looked}
	watching   = outcome{lifecycle.Exited, lifecycle.Exited}
)

// obligation is one outcome that is owed. It is resolved once: by resolve, or by
// Close, or it is dropped. One goroutine has it at a time.
type obligation struct {
	c                *container
	success, failure lifecycle.Event
	// undo is what Close does before it reports the failure, the last first.
	undo []func(context.Context) error
	// child is a process that Close kills and reaps before anything else.
	child child
	// settled is guarded by c.mu.
	settled bool
}

// owe makes the obligation for something that was begun with p.
func (c *container) owe(p lifecycle.Proc, o outcome) *obligation {
	return &obligation{
		c:       c,
		success: lifecycle.Event{Kind: o.success, Proc: p},
		failure: lifecycle.Event{Kind: o.failure, Proc: p},
	}
}

// ask steps the rules with what a client asks of p. What they accept and want to
// hear the outcome of gives an obligation, which the caller must Close; else it is
// nil. NotFound if p was deleted since the caller found it: its id may be that of
// another exec by now.
func (c *container) ask(p *process, ev lifecycle.Event) (*obligation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc(p.id) != p {
		return nil, notFound("process %q was deleted", p.id)
	}
	o, _, err := c.askLocked(ev)
	return o, err
}

// askLocked is ask with c.mu held. again is the effect AskAgain: nothing was
// begun.
func (c *container) askLocked(ev lifecycle.Event) (o *obligation, again bool, err error) {
	if out, owed := asked[ev.Kind]; owed {
		if ev.Kind == lifecycle.DeleteAsked && ev.Proc != initProc {
			out = execDelete
		}
		o = c.owe(ev.Proc, out)
	}
	if again, err = c.stepLocked(ev); again || err != nil {
		return nil, again, err
	}
	return o, false, nil
}

// resolve reports the success, after prepare, which may be nil and runs under the
// container's lock: what others see and the step of the rules change together. The
// second resolve of an obligation is a fault of the caller and reports nothing.
func (o *obligation) resolve(prepare func(ev *lifecycle.Event)) {
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	ev := o.success
	if prepare != nil && !o.settled {
		prepare(&ev)
	}
	o.settle(ev)
}

// settle reports an outcome; c.mu is held.
func (o *obligation) settle(ev lifecycle.Event) {
	if o.settled {
		o.c.log.Error("an outcome is reported twice", "event", ev.Kind.String(), "process", ev.Proc)
		return
	}
	o.settled = true
	_, _ = o.c.stepLocked(ev)
}

// drop settles the obligation without an outcome: the shim ends, and what was
// begun goes on without it.
func (o *obligation) drop() {
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	o.settled = true
}

func (o *obligation) isSettled() bool {
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	return o.settled
}

// onFailure adds something to be undone.
func (o *obligation) onFailure(undo func(context.Context) error) { o.undo = append(o.undo, undo) }

// keep takes what was begun for good: Close undoes none of it.
func (o *obligation) keep() { o.undo, o.child = nil, nil }

// Close ends what was begun and reports the failure, unless the obligation is
// settled. The errors are those of what was to be undone. It waits for a process
// that does not die for no longer than reapTime; then the failure is reported
// when the process has been reaped, and until then it counts as live.
func (o *obligation) Close() error {
	if o == nil || o.isSettled() {
		return nil
	}
	done, u := make(chan struct{}), &unwinding{o: o, reaped: make(chan struct{})}
	routine.Keep(o.c.log, "failure", u.run, routine.DebtFunc(func() { close(done) }), routine.DebtFunc(o.fail))
	limit := time.NewTimer(reapTime)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		select {
		case <-u.reaped:
			<-done
		default:
			o.c.log.Error("a killed process does not die", "process", o.failure.Proc, "pid", o.child.Pid())
			return nil
		}
	}
	return errors.Join(u.errs...)
}

// maxTries is how often a part of what was begun is undone if that panics.
const maxTries = 3

// unwinding undoes what an obligation has begun: first it ends the process, then it
// does the rest, the last first. It is run again after a panic and goes on where it
// was, with the part that panicked.
type unwinding struct {
	o      *obligation
	ended  bool
	tries  int           // of the present part
	reaped chan struct{} // closed when the process, if there is one, was reaped
	errs   []error
}

func (u *unwinding) run() {
	failpoint.Step("failure: begun")
	if !u.ended {
		u.try(u.o.end)
		u.ended = true
		close(u.reaped)
	}
	for len(u.o.undo) > 0 {
		last := len(u.o.undo) - 1
		u.try(func() { u.errs = append(u.errs, u.o.undo[last](context.Background())) })
		u.o.undo = u.o.undo[:last]
	}
}

// try does one part, unless it has panicked too often.
func (u *unwinding) try(part func()) {
	if u.tries++; u.tries <= maxTries {
		failpoint.Step("failure: part begun")
		part()
		failpoint.Step("failure: part done")
	}
	u.tries = 0
}

// fail reports the failure.
func (o *obligation) fail() {
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	if !o.settled { // it may have been dropped meanwhile
		o.settle(o.failure)
	}
}

// end kills and reaps the process that was begun, if there is one.
func (o *obligation) end() {
	if o.child == nil {
		return
	}
	if err := o.child.Signal(sigkill); err != nil && !isGone(err) {
		o.c.log.Error("a process cannot be killed", "pid", o.child.Pid(), "error", err)
	}
	if _, err := o.child.Wait(context.Background()); err != nil {
		o.c.log.Error("a killed process was not reaped", "pid", o.child.Pid(), "error", err)
	}
}
