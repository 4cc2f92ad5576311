// Package lifecycle holds the rules of one container: which call is allowed
// when, what is announced, and in which order. It is pure: an event goes in,
// effects come out, and nothing else happens. There is no goroutine, lock,
// clock or I/O in it, so it can be searched to exhaustion, and any shim may
// import it.
//
// # The promise
//
// Of every process of the container its start is announced before its exit,
// and each once. The exit of init is the last exit of the container. Put
// plainly: whoever reads the announcements in order is never told that
// something ended that they were not told had begun, and once they are told
// that the container ended, nothing of it is left running.
//
// # The contract with the caller
//
// A Machine belongs to one container and is stepped by one goroutine at a time
// (the caller's lock). The caller
//
//   - carries out the effects of one Step in their order, and the announcements
//     of one Step before those of the next: announcements are appended to an
//     ordered queue under the same lock that guards Step, the slow effects
//     (KillAll, LastLook, KillInit) are begun under it and done outside it;
//   - reports the outcome of everything it was allowed to begin, exactly once:
//     an accepted CreateAsked is followed by Created or CreateFailed, StartAsked
//     by Started or StartFailed, PauseAsked by Paused or PauseFailed, ResumeAsked
//     by Resumed or ResumeFailed, DeleteAsked by Deleted or DeleteFailed (an exec's
//     by Deleted, and not at all if it came back with AskAgain), KillAll by
//     KillAllDone or KillAllFailed, LastLook by Looked; also if the code that
//     carries it out panics, or if the client that asked has gone;
//   - begins to wait for a process when it is told to Watch it, and not before,
//     and then reports its exit once. Until that moment the kernel keeps a dead
//     child as a zombie, and that is where early exits are kept: none is copied
//     to anybody and none can be lost (the scheme of containerd's PR 8617, with
//     the kernel in the place of the maps);
//   - reports StartFailed of an exec or of a restore, and CreateFailed, only when
//     nothing of it is left: a process that was forked before a later step failed
//     is killed and reaped first. Until then an exec counts as live. What such an
//     exec, or the runtime that was starting it, has left behind in a shared pid
//     namespace may live on, and is killed with the rest when init is dead.
//
// A Step that is refused or that breaks this contract changes nothing.
//
// # Four stages of an exit
//
// Exited: the process was reaped and the machine told. Announced: its exit is in
// the queue; State, Wait and Delete see it from here on and not before, so that
// nobody can overtake the announcement (a Delete that follows a Wait is queued
// behind the exit). Drained: its output was copied, which is the caller's to
// know. Deleted: nobody can ask for it any more.
//
// # Why init's exit may have to wait
//
// It is held while its own start is under way (the start has to be announced
// first, or to have failed), while an exec lives or is being started (that one's
// exit has to come first), while the processes it leaves behind in a pid
// namespace it did not own are killed, and for a last look at the container's
// out-of-memory counter. An exec that began to start before init died may join
// the container after everything in it was killed, so the killing is done again
// after every such start, and after a pause that was under way then, because what
// is frozen neither starts nor dies: KillAll thaws. As long as killing fails,
// because a process does not die or because it cannot be tried, it is repeated and
// init's exit is held: that exit says that nothing of the container runs.
package lifecycle
