package outbox

import "container/list"

// Kind says what an event is about, and with that when it may be dropped.
type Kind uint8

// The kinds of events. The zero value is none.
const (
	_         Kind = iota
	Create         // the container was created; never dropped, like all of init's
	Start          // its init was started
	Exit           // its init has exited
	Delete         // it was deleted, the last event of the container
	ExecAdded      // the first event of an exec
	ExecStarted
	ExecExit // the last event of an exec
	OOM      // the container ran out of memory
	Note     // paused, resumed and the like: nothing depends on it
	kinds
)

var kindNames = [kinds]string{"", "create", "start", "exit", "delete", "exec-added", "exec-started", "exec-exit", "oom", "note"}

func (k Kind) String() string {
	if k == 0 || k >= kinds {
		return "unknown"
	}
	return kindNames[k]
}

func (k Kind) ofExec() bool { return k >= ExecAdded && k <= ExecExit }

// entry is one queued event. It is in queue.order and, unless it is of an init,
// in one list of things that can be dropped.
type entry struct {
	key     execKey
	kind    Kind
	payload *payload
	place   *list.Element // in queue.order
	victim  *list.Element // in queue.notes, queue.ooms or story.events
	story   *story        // of an exec
}

type execKey struct{ container, exec string }

// story is what is queued of one exec.
type story struct {
	key    execKey
	events *list.List    // of *entry, in order; the entry in flight is not among them
	heard  bool          // containerd was sent some event of it, perhaps without success
	muted  bool          // some event was dropped, so that the rest must be
	place  *list.Element // in queue.unheard or queue.heard, while events has any
}

// queue holds events in order, and knows which to drop. It is plain data: no
// lock, goroutine or clock.
//
// Invariants: order holds every queued entry, and the entry in flight at its
// front; droppable counts those of them that are in a list of victims; a story is
// in stories while it is muted or has events.
type queue struct {
	limit     int
	order     *list.List // of *entry
	inflight  *entry
	notes     *list.List // of *entry
	ooms      *list.List // of *entry
	unheard   *list.List // of *story, the oldest first
	heard     *list.List // of *story, about in the order of their oldest events
	stories   map[execKey]*story
	muted     map[string]map[*story]struct{} // by container, until its Delete
	droppable int
	dropped   [kinds]uint64
}

func newQueue(limit int) *queue {
	return &queue{
		limit: limit, order: list.New(), notes: list.New(), ooms: list.New(),
		unheard: list.New(), heard: list.New(),
		stories: map[execKey]*story{}, muted: map[string]map[*story]struct{}{},
	}
}

func (q *queue) len() int { return q.order.Len() }

// push appends an event, and drops what is too much.
func (q *queue) push(k Kind, key execKey, p *payload) {
	e := &entry{kind: k, key: key, payload: p}
	switch {
	case k.ofExec():
		if !q.pushExec(e) {
			return
		}
	case k == Note:
		e.victim = q.notes.PushBack(e)
		q.droppable++
	case k == OOM:
		e.victim = q.ooms.PushBack(e)
		q.droppable++
	case k == Delete:
		q.forgetMuted(key.container)
	}
	e.place = q.order.PushBack(e)
	for q.droppable > q.limit {
		q.dropOne()
	}
}

// pushExec enters the event in its exec's story. False if that is muted: the
// event is dropped.
func (q *queue) pushExec(e *entry) bool {
	s := q.stories[e.key]
	if s == nil || e.kind == ExecAdded {
		if s != nil { // an id used again: the old story ends here
			q.unmute(s)
		}
		// Without a story on record all that came before was delivered.
		s = &story{key: e.key, events: list.New(), heard: e.kind != ExecAdded}
		q.stories[e.key] = s
	}
	e.story = s
	if s.muted {
		q.dropped[e.kind]++
		if e.kind == ExecExit {
			q.forget(s)
		}
		return false
	}
	e.victim = s.events.PushBack(e)
	q.droppable++
	if s.place == nil {
		if s.heard {
			s.place = q.heard.PushBack(s)
		} else {
			s.place = q.unheard.PushBack(s)
		}
	}
	return true
}

// next is the event at the head, which from now on cannot be dropped: it may be
// on its way. Nil if there is none. It stays the head until done.
func (q *queue) next() *entry {
	if q.inflight != nil || q.order.Len() == 0 {
		return q.inflight
	}
	e := q.order.Front().Value.(*entry)
	q.inflight = e
	q.spare(e)
	if s := e.story; s != nil && !s.heard {
		s.heard = true
		if s.place != nil {
			q.unheard.Remove(s.place)
			s.place = q.heard.PushFront(s) // what is left of it is next in order, most often
		}
	}
	return e
}

// done takes the event in flight off the queue.
func (q *queue) done() {
	e := q.inflight
	q.inflight = nil
	q.order.Remove(e.place)
	if s := e.story; s != nil && s.events.Len() == 0 && !s.muted {
		q.forget(s)
	}
}

// refuse drops the event in flight, and what else is told of its exec.
func (q *queue) refuse() {
	e := q.inflight
	q.dropped[e.kind]++
	if s := e.story; s != nil && e.kind != ExecExit {
		q.mute(s)
	}
	q.done()
}

// spare takes an entry out of the list of victims it is in.
func (q *queue) spare(e *entry) {
	if e.victim == nil {
		return
	}
	switch {
	case e.story != nil:
		s := e.story
		s.events.Remove(e.victim)
		if s.events.Len() == 0 && s.place != nil {
			if s.heard {
				q.heard.Remove(s.place)
			} else {
				q.unheard.Remove(s.place)
			}
			s.place = nil
		}
	case e.kind == Note:
		q.notes.Remove(e.victim)
	default:
		q.ooms.Remove(e.victim)
	}
	e.victim = nil
	q.droppable--
}

// dropOne makes room, in the order that the package's documentation states.
func (q *queue) dropOne() {
	switch {
	case q.notes.Len() > 0:
		q.drop(q.notes.Front().Value.(*entry))
	case q.unheard.Len() > 0:
		q.mute(q.unheard.Front().Value.(*story))
	case q.ooms.Len() > 0:
		q.drop(q.ooms.Front().Value.(*entry))
	default:
		q.mute(q.heard.Front().Value.(*story))
	}
}

func (q *queue) drop(e *entry) {
	q.spare(e)
	q.order.Remove(e.place)
	q.dropped[e.kind]++
}

// mute drops what is queued of the story. What is still to come will be dropped
// when it comes, unless its end was among what was dropped.
func (q *queue) mute(s *story) {
	ended := false
	for el := s.events.Front(); el != nil; el = s.events.Front() {
		e := el.Value.(*entry)
		ended = ended || e.kind == ExecExit
		q.drop(e)
	}
	if ended || q.stories[s.key] != s {
		q.forget(s)
		return
	}
	s.muted = true
	if q.muted[s.key.container] == nil {
		q.muted[s.key.container] = map[*story]struct{}{}
	}
	q.muted[s.key.container][s] = struct{}{}
}

func (q *queue) unmute(s *story) {
	s.muted = false
	if m := q.muted[s.key.container]; m != nil {
		delete(m, s)
		if len(m) == 0 {
			delete(q.muted, s.key.container)
		}
	}
}

func (q *queue) forget(s *story) {
	q.unmute(s)
	if q.stories[s.key] == s {
		delete(q.stories, s.key)
	}
}

// forgetMuted ends the stories of a container's execs that never had an end:
// added, dropped, and never started.
func (q *queue) forgetMuted(container string) {
	for s := range q.muted[container] {
		q.forget(s)
	}
}
