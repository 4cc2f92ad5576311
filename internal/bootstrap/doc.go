// Package bootstrap is the shim's binary as containerd sees it: the start, delete
// and -info commands, the serving process, its socket, and what each generation of
// containerd wants said.
//
//   - start runs in the bundle, gets a socket that answers for the container's
//     group, starts the serving process behind it (or finds one), and prints its
//     address. It does nothing that it need not: the listening socket is handed over
//     as descriptor 3, so that a connection made before the server is ready waits in
//     the backlog.
//   - Without a command the process serves: the task API on that socket, for as
//     long as there are containers.
//   - delete cleans up after a container whose shim is gone, or is about to be.
//   - -info and -v tell about the binary.
//
// What containerd is at the other end shows in the input of start: BootstrapParams
// since 2.3, bare runtime options before; and from 1.7 on MAX_SHIM_VERSION is in the
// environment. 1.7 and 2.0 to 2.2 cannot be told apart, so both are told version 2,
// which both speak. A start that joins a running shim says what that one speaks
// (containerd issue 10888), which it finds out by asking it.
package bootstrap
