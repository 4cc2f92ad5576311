// Package shimclient plays the part of containerd towards a runtime shim: it starts
// any shim through its real protocol, speaks the task API to it, receives its events,
// and puts everything away afterwards. There is no daemon behind it.
//
// The pieces, in the order in which they are used:
//
//	Home    a private directory for sockets, bundles and the runtime's state
//	Sink    the event service that the shim forwards its events to
//	Bundle  one container's bundle as a daemon would write it
//	Start   runs `<shim> ... start`, parses its answer, connects
//	Shim    the running shim: its Task API, its process, its end
//
// What always holds: whatever Start began, Shim.Stop (or the error path of Start itself)
// has ended when it returns: the shim's process, helpers that hang, containers of the
// runtime, mounts below the Home, the containers' cgroups. Processes are never
// signalled by number alone: each is held by a pidfd and looked at again first.
package shimclient
