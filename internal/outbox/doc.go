// Package outbox is the one ordered queue of events from the shim to containerd.
//
// # Promises
//
//   - Order. Events reach containerd in the order of Append. An event that
//     cannot be delivered is tried again until it is; nothing overtakes it
//     (invariant 25, W8).
//   - Append never waits for anything but the queue's own small mutex: neither
//     an absent nor a hung containerd is felt by an RPC. [Outbox.Pace] does wait,
//     for one that is taking events, before an exec is added.
//   - At least once. An event is taken off the queue when containerd has
//     answered. If the connection breaks between an event and its answer nobody
//     can know whether it was taken, and it is sent again on the next one; so an
//     event may arrive twice, but only with no other event between the two. To
//     keep that rare, a containerd that is merely slow is waited for, longer
//     each time, rather than asked again: what it was sent lies in its socket
//     and will be read. An hour of silence costs at most a dozen repetitions of
//     one event.
//   - Bounded memory. While containerd is away at most [MaxDroppable] events are
//     kept beside those that may never be dropped. The latter are bounded too:
//     four per container, and nobody but containerd can ask for a container.
//
// # What may be dropped, and in which order
//
// When one more droppable event than MaxDroppable would be queued, one of these
// goes, the first that there is:
//
//  1. the oldest [Note] (paused, resumed): State tells the truth meanwhile;
//  2. the oldest exec of which containerd has heard nothing yet, with all its
//     events, those to come included: to containerd it never was;
//  3. the oldest [OOM];
//  4. what is queued, and still to come, of an exec that containerd has heard of,
//     one of the oldest: it hears the beginning of that story but not the end.
//
// So what containerd hears of a process is always a prefix of added, started,
// exited. What happens to a container's init (create, start, exit, delete) is
// never dropped. Drops are counted by kind, and logged when an outage that
// caused some is over, or when the shim ends.
//
// A server that answers InvalidArgument will not have the event however often
// it is asked. Events that may be dropped are dropped after [maxRefusals] such
// answers; those that may not are asked again for ever, like after any other
// error.
package outbox
