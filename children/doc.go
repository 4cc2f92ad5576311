// Package children owns processes: it is the only place that forks, reaps, signals or waits for one.
//
// # The promise
//
// A pid is not an identity. A process whose parent has not reaped it keeps its pid, and the parent is the only one who
// can reap it; so an [Owner] never reaps blindly (wait4(-1)). It leaves a dead child where it is, in the kernel, until
// somebody proves that it is theirs and takes it by pidfd. The kernel is the buffer of early exits: no exit is copied,
// lost, seen twice or given to another process with the same pid, and the cost of one exit does not depend on how many
// starts are in flight.
//
// # Two kinds of process
//
// What this program forks itself (a call of the OCI runtime, a logger, a mount helper) goes through [Owner.Start]; it is
// known from before the fork until it has been reaped, and somebody must call [Process.Wait] for it.
//
// What others fork for us (a container's init, an exec: forked by the runtime, re-parented to us, because we are a
// subreaper) is taken through a [Window]:
//
//	os.Remove(pidFile)                   // a pid left from before must not be believed
//	w := owner.Begin(namespace)          // from here on no dead child that may be ours is thrown away
//	defer w.Close()
//	... run the runtime call to its end, read the pid file ...
//	child, err := w.Claim(pid)           // proves that pid is what the call made; signals nobody if it is not
//	... announce the start ...
//	exit, err := child.Wait(ctx)         // at once, if it died long ago
//
// A Claim succeeds only once the runtime call has ended, since before that the process is the runtime's child, not ours.
// A window must be closed at its call's deadline at the latest, even if the call itself cannot be ended. After Close a
// Claim is refused.
//
// # What a caller owes
//
//   - Whoever claims a Child or starts a Process waits for it. A process for which nobody waits stays a zombie.
//   - Third-party code that forks and waits by itself runs inside [Owner.Guard].
//   - Nobody in this program calls wait4(-1), waitid(P_ALL) without WNOWAIT, or ignores SIGCHLD. Nobody else listens for
//     SIGCHLD or changes its disposition either: while a sweep is armed, for 20 ms, it is SIG_DFL, and a change made then
//     is undone.
//   - A call that is given up is ended with [Process.KillTree], and its window closed. Between the two the pid file is read
//     again: the call may have written it in its last moment, and what it names is then claimed and killed, with
//     [Child.KillTree]. (runc writes
//     a file .NAME first and fails if there is one; a killed runc leaves it, so it is to be removed with the pid file.)
//   - In our own pid namespace a process that has left the call's process group, and whose parent has died, cannot be told
//     from a container's daemon: KillTree leaves it, and the cgroup's [Owner.KillAll] has to take it.
//
// # Orphans
//
// A subreaper inherits processes nobody told it of. A sweep looks for dead ones, some time after a SIGCHLD and never on
// the way of an exit. An unknown zombie is reaped once every window that was open when it was seen, and that could own it
// (judged by the pid namespace in which it lived), has closed. So nothing piles up under an unbroken load of windows, and
// one container's hung call does not hold back another's init, which the kernel lets nobody reap while a zombie of its
// pid namespace is left.
//
// # Forks
//
// A fork waits until the child has executed its program, which may take long: the
// kernel asks a scanner first, or reads from a slow file system. Only the caller
// of [Owner.Start] waits. [Owner.StartContext] kills a child that has not executed
// its program in time. A child has the descriptors that it was given and no other.
//
// # Concurrency
//
// Every method may be called from any goroutine. No method holds a lock while it waits for a process, a runtime call or
// a fork. Lock order: Owner.mu, then held.mu; both are leaves for everybody else.
package children
