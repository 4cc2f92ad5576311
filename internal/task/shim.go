package task

// The shim as a whole: the rules of package lifecycle/shim, and what carries their
// effects out.

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/larkshim/lark/internal/routine"
	"github.com/larkshim/lark/internal/taskapi"
	"github.com/larkshim/lark/lifecycle"
	shimrules "github.com/larkshim/lark/lifecycle/shim"
)

// whole is the shim as a whole; all of it is guarded by Service.mu.
type whole struct {
	rules   *shimrules.Machine
	last    shimrules.ID // the number of the last container
	watch   *time.Timer
	watches uint64 // the number of the last watch
}

// beginShim makes the rules. No client is connected yet.
func (s *Service) beginShim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var effects []shimrules.Effect
	s.shim.rules, effects = shimrules.New()
	s.performShim(effects)
}

// Opened is called when a connection was accepted, before it is read from. The number
// is not zero and not used again; calls have it in their context (taskapi.WithConn).
func (s *Service) Opened(conn uint64) {
	_ = s.stepShim(shimrules.Event{Kind: shimrules.Opened, Conn: shimrules.Conn(conn)})
}

// Closed is called when the connection has ended.
func (s *Service) Closed(conn uint64) {
	_ = s.stepShim(shimrules.Event{Kind: shimrules.Closed, Conn: shimrules.Conn(conn)})
}

// enterLocked enters a container that is asked for.
func (s *Service) enterLocked(ctx context.Context, c *container) error {
	s.shim.last++
	c.number = s.shim.last
	err := s.stepShimLocked(shimrules.Event{Kind: shimrules.CreateAsked, ID: c.number, Conn: shimrules.Conn(taskapi.Conn(ctx))})
	if err == nil {
		s.containers[c.id] = c
	}
	return err
}

// made is called when the container was created, before the client is answered.
func (s *Service) made(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[c.id] == c { // it may have been deleted already
		_ = s.stepShimLocked(shimrules.Event{Kind: shimrules.Made, ID: c.number})
	}
}

func (s *Service) stepShim(ev shimrules.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stepShimLocked(ev)
}

// stepShimLocked steps the rules and begins the effects; s.mu is held.
func (s *Service) stepShimLocked(ev shimrules.Event) error {
	effects, err := s.shim.rules.Step(ev)
	if errors.Is(err, shimrules.ErrContract) {
		s.cfg.Log.Error("the shim's rules were told of an event out of contract", "error", err)
	}
	s.performShim(effects)
	return err
}

func (s *Service) performShim(effects []shimrules.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case shimrules.Remove:
			s.beginRemove(e.ID)
		case shimrules.Retry:
			routine.AfterFunc(s.cfg.Log, "removal again", s.removePause, func() {
				_ = s.stepShim(shimrules.Event{Kind: shimrules.Again, ID: e.ID})
			})
		case shimrules.Watch:
			s.setWatch(s.cfg.Alone, e.Watch)
		case shimrules.WatchSoon:
			s.setWatch(min(s.cfg.Alone, lookPause), e.Watch)
		case shimrules.Unwatch:
			s.setWatch(0, 0)
		case shimrules.End:
			s.cfg.Shutdown()
		}
	}
}

// setWatch replaces the watch; there is none if d is zero.
func (s *Service) setWatch(d time.Duration, watch uint64) {
	if s.shim.watch != nil {
		s.shim.watch.Stop()
		s.shim.watch = nil
	}
	if watch != 0 {
		s.shim.watches = watch
	}
	if d > 0 {
		s.shim.watch = routine.AfterFunc(s.cfg.Log, "look", d, func() { s.look(watch) })
	}
}

// look tells the rules which containers no client can ask for any more.
func (s *Service) look(watch uint64) {
	ev := shimrules.Event{Kind: shimrules.Looked, Watch: watch}
	for _, c := range s.all() {
		if c.orphaned() {
			ev.Orphans = append(ev.Orphans, c.number)
		}
	}
	_ = s.stepShim(ev)
}

func (s *Service) all() []*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*container, 0, len(s.containers))
	for _, c := range s.containers {
		all = append(all, c)
	}
	return all
}

// orphaned reports whether the init is dead and the bundle is not there, by which
// containerd finds a container.
func (c *container) orphaned() bool {
	v, ok := c.view(initProc)
	dead := v.Status == lifecycle.StatusStopped || v.Status == lifecycle.StatusCreated && v.Pid == 0
	if !ok || !dead {
		return false
	}
	_, err := os.Lstat(c.bundle.Path())
	return errors.Is(err, fs.ErrNotExist)
}

// beginRemove removes a container that no client asks for; s.mu is held.
func (s *Service) beginRemove(id shimrules.ID) {
	for _, c := range s.containers {
		if c.number != id {
			continue
		}
		outcome := shimrules.RemoveFailed
		routine.Go(c.log, "removal", func() {
			if s.remove(c) {
				outcome = shimrules.Used
			}
		}, routine.DebtFunc(func() {
			// After Gone, which its delete has stepped, this changes nothing.
			_ = s.stepShim(shimrules.Event{Kind: outcome, ID: id})
		}))
	}
}

// remove deletes the container, whose init is killed if it was not started. It
// reports whether a client has started it.
func (s *Service) remove(c *container) (used bool) {
	c.log.Warn("the container is removed: no client can know of it")
	c.orphan.Store(c.orphaned())
	_, err := c.delete(context.Background(), c.init)
	if err == nil {
		return false
	}
	c.log.Warn("a container that no client can know of was not removed", "error", err)
	v, _ := c.view(initProc)
	switch v.Status {
	case lifecycle.StatusRunning, lifecycle.StatusPausing, lifecycle.StatusPaused:
		return true
	}
	return false
}

// remover is the runtime with which the container is deleted.
func (c *container) remover() (ociRuntime, error) {
	if !c.orphan.Load() {
		return c.runtime, nil
	}
	config := c.runtimeConfig
	config.Dir = "/"
	rt, err := c.service.rooms.newRuntime(config)
	if err != nil {
		return nil, err
	}
	return urgent{rt, c.service.calls}, nil
}
