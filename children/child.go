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

// Signal sends a signal to the process; os.ErrProcessDone once it has exited.
func (c *Child) Signal(sig unix.Signal) error { return c.held.signal(sig) }
