package lifecycle

import "fmt"

// observer reads the effects of a machine and knows nothing else: no state, no
// world. It is what a client can hold the machine to, whatever is fed to it, and
// it goes with every script and every fuzzed sequence.
type observer struct {
	created, deleted, forgotten bool
	init                        seen
	execs                       map[Proc]*seen
}

// seen is what was announced of one process.
type seen struct {
	added, started, exited, watched, released bool
	pid                                       int
}

// of gives what was seen of p. An exec that was deleted may come again under its
// id: added begins anew once it was released.
func (o *observer) of(e Effect) *seen {
	if e.Proc == Init {
		return &o.init
	}
	x := o.execs[e.Proc]
	if x == nil || (e.Kind == Announce && e.Topic == TopicExecAdded && x.released) {
		x = &seen{}
		if o.execs == nil {
			o.execs = map[Proc]*seen{}
		}
		o.execs[e.Proc] = x
	}
	return x
}

// take follows one effect.
func (o *observer) take(e Effect) error {
	x := o.of(e)
	bad := func(what string) error {
		return fmt.Errorf("%v %v %q: %s", e.Kind, e.Topic, e.Proc, what)
	}
	if o.forgotten {
		return bad("after the container was forgotten")
	}
	switch e.Kind {
	case Announce:
		return o.announced(e, x, bad)
	case Watch:
		if x.watched || x.exited || (e.Proc == Init && !o.created) || (e.Proc != Init && !x.started) {
			return bad("waited for twice or before it was announced")
		}
		x.watched = true
	case Release:
		if x.released || (x.watched && !x.exited) {
			return bad("released twice or before the exit was announced")
		}
		x.released = true
	case Forget:
		o.forgotten = true
	case KillAll, LastLook, KillInit, AskAgain:
		if o.init.exited {
			return bad("after the exit of init")
		}
	}
	return nil
}

func (o *observer) announced(e Effect, x *seen, bad func(string) error) error {
	switch {
	case o.deleted:
		return bad("after the container was deleted")
	case !o.created && e.Topic != TopicCreate:
		return bad("before the creation")
	case o.init.exited && e.Topic != TopicDelete:
		return bad("after the exit of init")
	}
	switch e.Topic {
	case TopicCreate:
		if o.created {
			return bad("twice")
		}
		o.created = true
	case TopicExecAdded:
		if x.added {
			return bad("twice")
		}
		x.added = true
	case TopicStart, TopicExecStarted:
		if x.started || x.exited || (e.Topic == TopicExecStarted && !x.added) {
			return bad("twice, after the exit or before it was added")
		}
		x.started, x.pid = true, e.Pid
	case TopicExit:
		return o.exited(e, x, bad)
	case TopicDelete:
		if o.init.watched && !o.init.exited {
			return bad("before the exit of init")
		}
		o.deleted = true
	}
	return nil
}

func (o *observer) exited(e Effect, x *seen, bad func(string) error) error {
	if x.exited || !x.watched {
		return bad("twice, or nobody waited for it")
	}
	if x.started && x.pid != e.Pid {
		return bad("with the pid of another process")
	}
	x.exited = true
	if e.Proc == Init {
		for p, other := range o.execs {
			if other.started && !other.exited {
				return bad("before the exit of exec " + string(p))
			}
		}
	}
	return nil
}
