package task

import "github.com/larkshim/lark/lifecycle"

// How requests find what they name.

// find returns the process, which clients are not told of unless the rules say so.
func (c *container) find(p lifecycle.Proc) (*process, lifecycle.View, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.machine.View(p)
	proc := c.proc(p)
	if !ok || proc == nil {
		if p == initProc {
			return nil, v, notFound("container not created: %q", c.id)
		}
		return nil, v, notFound("process %q of container %q does not exist", p, c.id)
	}
	return proc, v, nil
}

// proc returns the process or nil; c.mu is held.
func (c *container) proc(p lifecycle.Proc) *process {
	if p == initProc {
		return c.init
	}
	return c.execs[p]
}

func (c *container) view(p lifecycle.Proc) (lifecycle.View, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.machine.View(p)
}

// locate finds the process that a request names by two ids.
func (s *Service) locate(id, execID string) (*container, *process, lifecycle.View, error) {
	c, err := s.find(id)
	if err != nil {
		return nil, nil, lifecycle.View{}, err
	}
	p, v, err := c.find(lifecycle.Proc(execID))
	return c, p, v, err
}
