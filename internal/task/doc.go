// Package task is the task API: it turns each call into an event for the
// container's rules (package lifecycle) and each effect of those into a call of
// one of the rooms that touch the world.
//
// # Locks
//
// There are two, and this is their order:
//
//	container.mu      one container: its rules, its table of processes
//	  Service.mu      the table of containers
//
// Neither is held across a runtime call, a wait, a publish or a kill of more than
// one process. Announcements are appended to the outbox under container.mu, which
// is what makes their order that of the rules.
//
// # The shim as a whole
//
// Package lifecycle/shim decides when a create is undone and when the shim ends
// (shim.go). Its rules are stepped under Service.mu, and its effects begun there.
//
// # What waits for what
//
// State, Pids, Connect and Stats wait for nothing. Wait waits for an exit to be
// announced. Create, Start, Delete, Kill, Pause, Resume, Update and Checkpoint
// wait for the runtime call that they make, and for no other; Delete also waits
// for the output of the process to be copied. A call goes on when the client that
// made it has gone, so that what it began ends in a known state (W17).
package task
