package lifecycle

import (
	"strconv"
	"time"
)

// Proc names a process of the container: Init, or the id of an exec.
type Proc string

// Init is the container's first process.
const Init Proc = ""

// Exit is how a process ended.
type Exit struct {
	// Status is the exit code, or 128 plus the number of the signal that ended it.
	Status uint32
	// At is when the exit was seen.
	At time.Time
}

// Kind is what kind of event an Event is.
type Kind uint8

// The events: first what clients ask for (a Step may refuse these), then the
// outcomes of what was begun, then what is observed.
const (
	// CreateAsked begins the container. Shared and Deferred of the Event count.
	CreateAsked Kind = iota
	// StartAsked asks to start Proc.
	StartAsked
	// ExecAsked asks to add the exec Proc.
	ExecAsked
	// KillAsked asks to signal Proc.
	KillAsked
	// PauseAsked asks to freeze the container.
	PauseAsked
	// ResumeAsked asks to thaw it.
	ResumeAsked
	// UpdateAsked asks to change its resources.
	UpdateAsked
	// CheckpointAsked asks to dump it.
	CheckpointAsked
	// DeleteAsked asks to remove Proc.
	DeleteAsked

	// Created says that the runtime made the container. Pid of the Event counts,
	// unless the container was asked for as Deferred.
	Created
	// CreateFailed says that it did not, and that nothing is left of the attempt.
	CreateFailed
	// Started says that the runtime started Proc. Pid counts for an exec, and for
	// the init of a deferred container.
	Started
	// StartFailed says that it did not, or that it cannot be known. Nothing is
	// left of an exec or of a restore; a created init may still be there.
	StartFailed
	// Paused says that the container was frozen.
	Paused
	// PauseFailed says that it was not.
	PauseFailed
	// Resumed says that the container was thawed.
	Resumed
	// ResumeFailed says that it was not.
	ResumeFailed
	// Deleted says that Proc was removed.
	Deleted
	// DeleteFailed says that the container was not; it may be asked for again. The
	// removal of an exec needs no runtime and does not fail.
	DeleteFailed
	// KillAllDone says that a KillAll was carried out: nothing is left alive.
	KillAllDone
	// KillAllFailed says that it was not, or that it is not known. It is asked for
	// again, as often as it fails; the caller paces itself.
	KillAllFailed
	// Looked is the outcome of LastLook. OOM counts.
	Looked

	// Exited says that Proc was reaped. Exit counts.
	Exited
	// OutOfMemory says that the kernel's OOM killer struck in the container.
	OutOfMemory

	numKinds
)

// Event is one thing that happened.
type Event struct {
	Kind Kind
	// Proc is the process concerned, Init where an event concerns the container.
	Proc Proc
	// Pid is the process id in the shim's pid namespace.
	Pid int
	// Exit is how Proc ended.
	Exit Exit
	// Shared says that init is not the first process of its pid namespace, so
	// that the kernel does not end the others with it.
	Shared bool
	// Deferred says that there is no process before Start (a restore).
	Deferred bool
	// OOM says that the last look found that the OOM killer had struck.
	OOM bool
}

// EffectKind is what kind of effect an Effect is.
type EffectKind uint8

// The effects.
const (
	// Announce appends an announcement to the ordered queue.
	Announce EffectKind = iota + 1
	// Watch begins to wait for Proc, whose exit is to be reported as Exited.
	Watch
	// Release lets those go on who wait for the exit of Proc. It follows the
	// announcement of that exit, or says that there will be none because Proc could
	// not be started, or was removed before it was. It comes once for each Proc, and
	// before the container is forgotten.
	Release
	// KillAll thaws the container's cgroup and kills every process that is left in it.
	KillAll
	// LastLook stops the watch for OOM kills and reads the counter once more.
	LastLook
	// KillInit sends SIGKILL to init.
	KillInit
	// AskAgain tells who asked to delete a container that never ran that its init is
	// dead or condemned: wait for its exit to be announced, then ask again.
	AskAgain
	// Forget drops the container: nothing will be announced of it any more.
	Forget
)

// Topic is what an announcement says.
type Topic uint8

// The topics, in the words of containerd's task events.
const (
	TopicCreate Topic = iota + 1
	TopicStart
	TopicExecAdded
	TopicExecStarted
	TopicExit
	TopicOOM
	TopicPaused
	TopicResumed
	TopicDelete
)

// Effect is one thing the caller has to do.
type Effect struct {
	Kind EffectKind
	Proc Proc
	// Topic, Pid and Exit are set for Announce.
	Topic Topic
	Pid   int
	Exit  Exit
}

var kindNames = [numKinds]string{
	CreateAsked: "create?", StartAsked: "start?", ExecAsked: "exec?", KillAsked: "kill?",
	PauseAsked: "pause?", ResumeAsked: "resume?", UpdateAsked: "update?",
	CheckpointAsked: "checkpoint?", DeleteAsked: "delete?",
	Created: "created", CreateFailed: "create-failed", Started: "started", StartFailed: "start-failed",
	Paused: "paused", PauseFailed: "pause-failed", Resumed: "resumed", ResumeFailed: "resume-failed",
	Deleted: "deleted", DeleteFailed: "delete-failed", KillAllDone: "kill-all-done",
	KillAllFailed: "kill-all-failed", Looked: "looked",
	Exited: "exited", OutOfMemory: "oom",
}

// String names the event as the scenario scripts do: what is asked for ends in
// a question mark.
func (k Kind) String() string { return name(kindNames[:], int(k), "event") }

var effectNames = []string{
	Announce: "announce", Watch: "watch", Release: "release", KillAll: "kill-all",
	LastLook: "last-look", KillInit: "kill-init", AskAgain: "ask-again", Forget: "forget",
}

// String names the effect as the scenario scripts do.
func (k EffectKind) String() string { return name(effectNames, int(k), "effect") }

var topicNames = []string{
	TopicCreate: "create", TopicStart: "start", TopicExecAdded: "exec-added",
	TopicExecStarted: "exec-started", TopicExit: "exit", TopicOOM: "oom",
	TopicPaused: "paused", TopicResumed: "resumed", TopicDelete: "delete",
}

// String is the last part of containerd's topic, "/tasks/..." before it.
func (t Topic) String() string { return name(topicNames, int(t), "topic") }

func name(names []string, i int, what string) string {
	if i >= 0 && i < len(names) && names[i] != "" {
		return names[i]
	}
	return what + "(" + strconv.Itoa(i) + ")"
}
