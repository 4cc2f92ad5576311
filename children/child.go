package children

import (
	"context"

	"golang.org/x/sys/unix"
)

// Child is a process that was forked by somebody else for us and claimed. Only [Window.Claim] makes one. Its methods may
// be called from any goroutine.
type Child struct{ held *held }

// Pid is the process's number, as seen from our pid namespace. It is nobody else's until Wait has returned.
func (c *Child) Pid() int { return c.held.pid }

// Wait returns the exit of the process, and reaps it when it has exited. It may be called by many and after the exit; all
// are told the same. It fails with the cause of ctx, which ends this wait only; with ErrClosed; or with ErrLost.
func (c *Child) Wait(ctx context.Context) (Exit, error) { return c.held.wait(ctx) }

// Died returns once the process is dead and leaves it to Wait to reap it: what the
// kernel keeps for an unreaped process can be looked at in between. It fails as
// Wait does.
func (c *Child) Died(ctx context.Context) error { return c.held.waitDead(ctx) }

// Signal sends a signal to the process; os.ErrProcessDone once it has exited.
func (c *Child) Signal(sig unix.Signal) error { return c.held.signal(sig) }

// KillTree kills the process and all its descendants, for a caller that will not
// wait for it: the process is reaped here, or by the sweep.
//
// It returns when they are dead, or DeadlineExceeded after two seconds: some
// process is in uninterruptible sleep then, and is reaped when it wakes.
func (c *Child) KillTree() error {
	o := c.held.owner
	victims := o.capture(c.held)
	_ = c.held.signal(unix.SIGKILL)
	for _, v := range victims {
		_ = retry(func() error { return o.sys.pidfdSignal(v.fd, unix.SIGKILL) })
	}
	tree := append([]*held{c.held}, victims...)
	return o.await(tree, tree)
}
