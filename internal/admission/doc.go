// Package admission is the queue of a shim's calls of the OCI runtime.
//
// A burst of calls that all run at once slows every one of them down, until
// their deadlines end: the runtime itself may serialise them, and a machine with
// two processors gets through no more of them for starting all. So a few run at
// once, and the others wait.
//
//   - The deadline of a call begins when it is admitted: waiting for others is no
//     failure of the runtime.
//   - Calls of one container are admitted in the order in which they came.
//     Containers take turns, so that a burst in one does not hold up another of
//     the same pod.
//   - A call that has run for long no longer counts, and another takes its place:
//     a call that hangs holds up nothing for ever. It counts longer for calls of
//     its own container, since a runtime that serialises the calls of a container
//     would otherwise be given ever more of them.
//   - On a machine with many processors a queue begins narrow, and widens as calls
//     turn out to be quick.
//   - The calls that end a container have a lane of their own: nothing that a
//     client begins keeps a Kill or a Delete waiting.
//   - A caller whose context ends leaves the queue. The queue is bounded.
package admission
