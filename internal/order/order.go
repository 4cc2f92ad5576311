// Package order checks a stream of containerd task events, in the order in
// which they arrived, against the promises that a shim makes about them: a
// process is told of before it is told to have ended, it ends exactly once,
// and a container's init ends last.
//
// A Checker is fed by Observe, one event after the other. Who also knows what
// the calls to the shim answered tells it by Answered; Finish then says what is
// missing. It knows nothing of processes, sockets or protocol buffers, so the
// storms against a real containerd, `lark run` and a random walk over the rules
// can all share it (package taskevents decodes containerd's messages).
//
// What is checked, by the names used in the violations:
//
//	invariant 1   create is a container's first event; start before exit
//	invariant 2   exactly one exit per process that ever had a pid; its pid and time are that process's
//	invariant 3   every exec's exit comes before its init's, which is the container's last
//	invariant 4   no exec starts after its init's exit
//	invariant 8   a created container whose init dies without a start has an exit too
//	invariant 10  no start event where the start was answered with an error; 11 likewise for an exec
//	invariant 16  delete follows the exit and repeats its pid and status
//	invariant 17  an out-of-memory event comes before its container's exit
//	invariant 25  events of one container arrive in the order in which they were sent
//	I4, I13       Start, Wait and Delete answer what the events say
package order

import (
	"fmt"
	"time"
)

// Kind says what an event tells.
type Kind uint8

// The kinds of event. Other stands for events that are not about a task's
// order (a checkpoint, another topic) and is counted but not judged.
const (
	Other Kind = iota
	Created
	Started
	Exited
	Deleted
	ExecAdded
	ExecStarted
	OOM
	Paused
	Resumed
)

var kindNames = [...]string{"other", "create", "start", "exit", "delete", "exec-added", "exec-started", "oom", "paused", "resumed"}

// String gives the last part of the kind's topic, as in "/tasks/exec-added".
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Event is what the checker needs to know of one task event.
type Event struct {
	Kind      Kind
	Container string
	// Exec is empty where the event is about the container's init.
	Exec string
	// Pid is that of Created (0 when no process was made, as for a restore),
	// Started, ExecStarted, Exited and Deleted.
	Pid uint32
	// Status and At are those of Exited and Deleted.
	Status uint32
	At     time.Time
	// Sent is the time on the event's envelope, taken by the shim when it
	// queued the event; zero where there is no envelope.
	Sent time.Time
}

// process names what the event is about, for the reader of a violation.
func (e Event) process() string { return processName(e.Container, e.Exec) }

func processName(container, exec string) string {
	if exec == "" {
		return "init of " + container
	}
	return "exec " + exec + " of " + container
}

// Rule names a kind of violation; a test may count by it.
type Rule string

// The rules. Each comment says what an event stream did that broke it.
const (
	CreateFirst       Rule = "create-first"        // an event of a container before its create (invariant 1)
	CreateDoubled     Rule = "create-doubled"      // a second create without a delete between (invariant 22)
	StartDoubled      Rule = "start-doubled"       // a second start of one process
	StartAfterExit    Rule = "start-after-exit"    // a start after that process's exit (invariant 1)
	ExecAddedDoubled  Rule = "exec-added-doubled"  // a second exec-added for an exec that has not ended
	ExecNotAdded      Rule = "exec-not-added"      // an exec started or ended that was never added
	ExecAfterInit     Rule = "exec-after-init"     // an exec started after its init's exit (invariant 4)
	ExitWithoutStart  Rule = "exit-without-start"  // an exec's exit without its start (invariant 1)
	ExitDoubled       Rule = "exit-doubled"        // a second exit of one process (invariant 2)
	ExitPid           Rule = "exit-pid"            // an exit whose pid is not the process's (invariant 2)
	ExitTime          Rule = "exit-time"           // an exit without a time (invariant 2)
	InitNotLast       Rule = "init-not-last"       // init's exit while an exec was running (invariant 3)
	ExitAfterInit     Rule = "exit-after-init"     // an exec's exit after its init's (invariant 3)
	StartPid          Rule = "start-pid"           // a start whose pid is not the created one, or none
	DeleteBeforeExit  Rule = "delete-before-exit"  // a delete before the exit (invariant 16)
	DeleteDoubled     Rule = "delete-doubled"      // a second delete
	DeleteDiffers     Rule = "delete-differs"      // a delete that repeats another pid, status or time than the exit's
	AfterDelete       Rule = "after-delete"        // any event of a container after its delete
	OOMAfterExit      Rule = "oom-after-exit"      // out of memory told after the exit (invariant 17)
	Overtaken         Rule = "overtaken"           // an event that was sent before one that arrived earlier (invariant 25)
	StartMissing      Rule = "start-missing"       // a start was answered well, no start event came (invariant 18)
	StartUnasked      Rule = "start-unasked"       // a start event though the start was answered with an error (invariants 10, 11)
	ExitMissing       Rule = "exit-missing"        // a process that had a pid never ended (invariant 2)
	CreateMissing     Rule = "create-missing"      // a create was answered well, no create event came
	CreateUnasked     Rule = "create-unasked"      // a create event though the create was answered with an error
	ExecAddedMissing  Rule = "exec-added-missing"  // an exec was answered well, no exec-added event came
	ExecAddedUnasked  Rule = "exec-added-unasked"  // an exec-added event though the exec was answered with an error
	DeleteMissing     Rule = "delete-missing"      // a delete was answered well, no delete event came
	AnswerDiffers     Rule = "answer-differs"      // an answer's pid, status or time is not the event's (I4, I13)
	AnswerWithoutExit Rule = "answer-without-exit" // Wait answered, and no exit event came (invariant 15)
)

// Violation is one broken promise.
type Violation struct {
	Rule      Rule
	Container string
	Exec      string // empty for the init
	// Index is the position of the offending event in arrival order, counted
	// from 0; -1 for what only Finish can know.
	Index int
	// Text says in plain words what happened.
	Text string
}

// String is one line: the position, the rule and the words.
func (v Violation) String() string {
	if v.Index < 0 {
		return fmt.Sprintf("at the end: %s: %s", v.Rule, v.Text)
	}
	return fmt.Sprintf("event %d: %s: %s", v.Index, v.Rule, v.Text)
}

// Counts are the figures of a run, for its summary line.
type Counts struct {
	Containers int // create events
	Execs      int // exec-started events
	Exits      int // exit events, of inits and execs
	Events     int // all events, Other included
	Violations int
}
