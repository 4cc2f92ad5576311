// Package shim has the rules of a shim as a whole: which containers are being made,
// which clients are connected, and when the process may end. Package lifecycle has
// those of one container.
//
// Like that package it is pure: no goroutine, lock, clock or I/O. Step takes an event
// and returns its effects. The caller
//
//   - steps one event at a time, each in the order in which it happened;
//   - gives each container a number of its own, and each connection;
//   - carries out every effect, and steps its outcome: after Remove comes Gone,
//     RemoveFailed or Used; after Retry, when a pause is over, Again; after Watch and
//     WatchSoon, when the time is over and Unwatch has not come, Looked; after
//     End nothing.
package shim

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// ErrEnding refuses a Create: the shim is about to end.
var ErrEnding = fmt.Errorf("the shim is shutting down: %w", errdefs.ErrUnavailable)

// ID numbers the containers. A number is not used again, unlike a name.
type ID uint64

// Conn is a connection; zero is a caller of which none is known.
type Conn uint64

// Kind is a kind of event.
type Kind uint8

// The events.
const (
	// CreateAsked: a client, on Conn, asks for the container. It may be refused.
	CreateAsked Kind = iota
	// Made: its create has succeeded, and the client has not been answered yet.
	Made
	// Gone: its create has failed and nothing is left of it, or it was deleted.
	Gone
	// RemoveFailed: what Remove has begun did not come to its end.
	RemoveFailed
	// Used: the container is not removed because a client has started it.
	Used
	// Again: the pause that Retry asked for is over.
	Again
	// ShutdownAsked: a client asks the shim to end.
	ShutdownAsked
	// Opened and Closed: a connection, Conn.
	Opened
	Closed
	// Looked: the shim was alone for the time of the watch numbered Watch. Orphans
	// are the containers that no client can ask for any more, as they were seen
	// after that: the init is dead and the bundle is not there.
	Looked

	numKinds
)

// Event is something that has happened.
type Event struct {
	Kind    Kind
	ID      ID
	Conn    Conn
	Watch   uint64
	Orphans []ID
}

// EffectKind is a kind of effect.
type EffectKind uint8

// The effects.
const (
	// Remove: kill the container and delete it, telling its events.
	Remove EffectKind = iota + 1
	// Retry: step Again for the container after a pause.
	Retry
	// Watch and WatchSoon: look, after a long time and after a pause, whether the
	// shim is orphaned. They replace an earlier watch.
	Watch
	WatchSoon
	// Unwatch: no look is wanted.
	Unwatch
	// End: end the process.
	End
)

// Effect is something to be done.
type Effect struct {
	Kind  EffectKind
	ID    ID
	Watch uint64
}

// State is where a container stands.
type State uint8

// The states of a container.
const (
	// Absent: not there.
	Absent State = iota
	// Creating: a create is in flight, and its client is connected.
	Creating
	// Forgotten: a create is in flight, and its client has gone.
	Forgotten
	// There: created.
	There
	// Removing: the shim removes it by itself.
	Removing
	// Stuck: that has failed and will be tried again.
	Stuck

	numStates
)

// own are events of one container that follow from others: its client has closed
// the connection, and a look has found it orphaned for the second time.
const (
	callerGone = numKinds + iota
	orphaned

	numOwn
)

// cell is what an event does to a container. The zero cell is out of contract.
type cell struct {
	to State
	do EffectKind
	// stays: the state does not change.
	stays bool
}

func (c cell) written() bool { return c.stays || c.to != Absent || c.do != 0 || c == gone }

// gone is the cell of a container that is there no more.
var gone = cell{to: Absent, do: forget}

// forget is the effect, on the machine alone, of dropping the container.
const forget EffectKind = 255

// table is the rules of a container: every state by every event that is about one.
type table [numStates][numOwn]cell

var theTable = table{
	Absent: {
		CreateAsked: {to: Creating},
		// A client has deleted it meanwhile.
		RemoveFailed: {stays: true},
		Used:         {stays: true},
		Again:        {stays: true},
	},
	Creating: {
		Made:       {to: There},
		Gone:       gone,
		callerGone: {to: Forgotten},
	},
	Forgotten: {
		Made: {to: Removing, do: Remove},
		Gone: gone,
	},
	There: {
		Gone:     gone,
		orphaned: {to: Removing, do: Remove},
	},
	Removing: {
		Gone:         gone,
		RemoveFailed: {to: Stuck, do: Retry},
		Used:         {to: There},
	},
	Stuck: {
		Gone:  gone,
		Again: {to: Removing, do: Remove},
	},
}
