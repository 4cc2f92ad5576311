package shim

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// ErrContract is returned for an event that cannot happen while the caller keeps
// the contract. Nothing was changed.
var ErrContract = fmt.Errorf("lifecycle/shim: event out of contract: %w", errdefs.ErrInternal)

// The looks after which orphans are removed, and after which the shim ends although
// that has failed.
const (
	looksToRemove = 2
	looksToEnd    = 4
)

// rules are what a test breaks on purpose.
type rules struct {
	table table
	// keeps says whether a container in the state keeps the shim up.
	keeps [numStates]bool
	// remembers says whether a Shutdown that comes while there are containers is
	// kept until they are gone.
	remembers func(*Machine) bool
	// drops says whether an event about a container ends that: the shim is used.
	drops func(*Machine, Event) bool
	// wanted says whether a client may still ask something of the shim.
	wanted func(*Machine) bool
	// fresh says whether a look is of the watch that is on.
	fresh func(*Machine, Event) bool
	// orphan says whether every container is among the orphans.
	orphan func(*Machine, []ID) bool
	remove int // looksToRemove
	end    int // looksToEnd
}

var theRules = &rules{
	table:     theTable,
	keeps:     [numStates]bool{Creating: true, Forgotten: true, There: true, Removing: true, Stuck: true},
	remembers: (*Machine).inFlight,
	drops:     func(m *Machine, ev Event) bool { return ev.Kind == CreateAsked || m.State(ev.ID) == There },
	wanted:    func(m *Machine) bool { return len(m.conns) > 0 },
	fresh:     func(m *Machine, ev Event) bool { return ev.Watch == m.watch && m.watching },
	orphan:    (*Machine).allOrphans,
	remove:    looksToRemove, end: looksToEnd,
}

// container is one container of the shim.
type container struct {
	state State
	conn  Conn // of its create, while that is in flight
}

// Machine is one shim. The zero value is not usable: call New.
//
// Always true of it:
//   - it has ended only when there was no container, or when every one was an
//     orphan in each of several looks, with no connection in between;
//   - a Shutdown is remembered only while a create is in flight or being undone, and
//     forgotten when the next one begins;
//   - there is a watch on exactly while there is no connection.
type Machine struct {
	rules      *rules
	containers map[ID]*container
	conns      map[Conn]struct{}
	// asked: a Shutdown is remembered.
	asked bool
	ended bool
	// watch numbers the watches; watching: the last one is on. looks counts the looks
	// that have found orphans, in a row.
	watch    uint64
	watching bool
	looks    int
	out      []Effect
}

// New makes a machine of a shim without a connection. The effects are those of its
// beginning.
func New() (*Machine, []Effect) {
	m := &Machine{rules: theRules, containers: map[ID]*container{}, conns: map[Conn]struct{}{}}
	m.startWatch(Watch)
	return m, m.out
}

// State says where a container stands.
func (m *Machine) State(id ID) State {
	if c := m.containers[id]; c != nil {
		return c.state
	}
	return Absent
}

// Ended says whether the end was begun.
func (m *Machine) Ended() bool { return m.ended }

// Step takes one event. The effects are valid until the next Step. An error refuses a
// Create, or is ErrContract; nothing has changed then.
func (m *Machine) Step(ev Event) ([]Effect, error) {
	m.out = m.out[:0]
	switch ev.Kind {
	case CreateAsked, Made, Gone, RemoveFailed, Used, Again:
		if err := m.stepContainer(ev); err != nil {
			return nil, err
		}
	case ShutdownAsked:
		m.asked = m.asked || m.empty() || m.rules.remembers(m)
		m.endIfAsked(true)
		return m.out, nil
	case Opened:
		m.conns[ev.Conn] = struct{}{}
		m.stopWatch()
	case Closed:
		m.closed(ev.Conn)
	case Looked:
		if m.rules.fresh(m, ev) && !m.ended {
			m.looked(ev.Orphans)
		}
	default:
		return nil, fmt.Errorf("%w: %d", ErrContract, ev.Kind)
	}
	m.endIfAsked(false)
	return m.out, nil
}

func (m *Machine) stepContainer(ev Event) error {
	if ev.Kind == CreateAsked && m.ended {
		return ErrEnding
	}
	if err := m.move(ev.ID, ev.Kind); err != nil {
		return err
	}
	if m.rules.drops(m, ev) {
		m.asked = false
	}
	if ev.Kind != CreateAsked {
		return nil
	}
	m.containers[ev.ID].conn = ev.Conn
	if m.watching { // a caller without a connection: what was seen is old
		m.startWatch(Watch)
	}
	if _, open := m.conns[ev.Conn]; ev.Conn != 0 && !open {
		return m.move(ev.ID, callerGone)
	}
	return nil
}

// move carries out a cell of the table.
func (m *Machine) move(id ID, k Kind) error {
	c := m.containers[id]
	from := m.State(id)
	cell := m.rules.table[from][k]
	if !cell.written() {
		return fmt.Errorf("%w: %d of a container in state %d", ErrContract, k, from)
	}
	switch {
	case cell.stays:
		return nil
	case cell.do == forget:
		delete(m.containers, id)
		return nil
	case c == nil:
		c = &container{}
		m.containers[id] = c
	}
	if c.state = cell.to; c.state > Forgotten {
		c.conn = 0 // its client has been answered
	}
	if cell.do != 0 {
		m.out = append(m.out, Effect{Kind: cell.do, ID: id})
	}
	return nil
}

// closed forgets a connection, and the creates whose client was on it.
func (m *Machine) closed(conn Conn) {
	delete(m.conns, conn)
	for _, id := range m.ids() {
		if c := m.containers[id]; c.state == Creating && c.conn == conn {
			_ = m.move(id, callerGone)
		}
	}
	if len(m.conns) == 0 && !m.ended {
		m.startWatch(Watch)
	}
}

// looked judges a look.
func (m *Machine) looked(orphans []ID) {
	switch {
	case m.empty():
		m.finish()
		return
	case !m.rules.orphan(m, orphans):
		m.startWatch(Watch)
		return
	}
	looks := m.looks + 1
	switch {
	case looks >= m.rules.end:
		m.finish()
		return
	case looks >= m.rules.remove:
		for _, id := range m.ids() {
			if m.containers[id].state == There {
				_ = m.move(id, orphaned)
			}
		}
	}
	m.startWatch(WatchSoon)
	m.looks = looks
}

// empty reports whether no container keeps the shim up.
func (m *Machine) empty() bool {
	for _, c := range m.containers {
		if m.rules.keeps[c.state] {
			return false
		}
	}
	return true
}

// allOrphans reports whether every container is among the orphans and no create is
// in flight.
func (m *Machine) allOrphans(orphans []ID) bool {
	for id, c := range m.containers {
		if c.state == Creating || c.state == Forgotten || !slices.Contains(orphans, id) {
			return false
		}
	}
	return true
}

// inFlight reports whether a create is in flight, or is being undone.
func (m *Machine) inFlight() bool {
	for _, c := range m.containers {
		if c.state != There {
			return true
		}
	}
	return false
}

// endIfAsked ends the shim if a Shutdown is remembered, no container is left and no
// client is connected; now is the Shutdown itself, whose client is. A Shutdown is
// remembered no longer than a create is in flight.
func (m *Machine) endIfAsked(now bool) {
	m.asked = m.asked && (m.empty() || m.rules.remembers(m))
	if m.asked && !m.ended && m.empty() && (now || !m.rules.wanted(m)) {
		m.finish()
	}
}

func (m *Machine) finish() {
	m.stopWatch()
	m.ended = true
	m.out = append(m.out, Effect{Kind: End})
}

func (m *Machine) startWatch(k EffectKind) {
	m.watch++
	m.watching, m.looks = true, 0
	m.out = append(m.out, Effect{Kind: k, Watch: m.watch})
}

func (m *Machine) stopWatch() {
	if m.watching {
		m.out = append(m.out, Effect{Kind: Unwatch})
	}
	m.watching, m.looks = false, 0
}

// ids are the containers, in order.
func (m *Machine) ids() []ID {
	ids := make([]ID, 0, len(m.containers))
	for id := range m.containers {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
