package task

import (
	"time"

	"github.com/larkshim/lark/lifecycle"
)

// The wall clock may jump, by a day or to 1970, while a container runs. Deadlines and
// durations are not touched by that: Go's timers and Time.Sub use the monotonic clock.
// What is published is wall time, and there one thing is kept true: no process has
// exited before it was said to have started (row 58).

// stamp is the time of an announcement; c.mu is held. A start's is remembered.
func (c *container) stamp(e lifecycle.Effect) time.Time {
	at := c.service.clock()
	switch e.Topic {
	case lifecycle.TopicCreate, lifecycle.TopicStart, lifecycle.TopicExecStarted:
		if p := c.proc(e.Proc); p != nil {
			p.told = at
		}
	}
	return at
}

// notBefore is when p is said to have exited, which was seen at a time of the wall
// clock: not before what was told of its start.
func (c *container) notBefore(p *process, exit time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return later(exit, p.told)
}

// later is exit unless the wall clock has gone back since told; then it is told and the
// time that has really gone by.
func later(exit, told time.Time) time.Time {
	if !exit.Round(0).Before(told.Round(0)) { // Round strips the monotonic reading
		return exit
	}
	return told.Add(max(0, exit.Sub(told)))
}
