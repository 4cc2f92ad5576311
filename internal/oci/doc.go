// Package oci runs the OCI runtime (runc, crun, youki): one short-lived process
// per operation, bounded in time and in output, owned by children.Owner.
//
// What always holds:
//
//   - Every call ends. Its deadline is in the table of limits.go; a call that
//     is still there then is killed with everything it forked, and the caller
//     gets DeadlineExceeded.
//   - A call is not tied to the RPC that asked for it (W17): killing runc
//     half-way because a client went away leaves a process nobody knows.
//     Checkpoint and Restore are the exception: they have no deadline of their
//     own, so the client's context is the only bound they have.
//   - Create, Exec and Restore either return a claimed *children.Child or leave
//     nothing running: what the call forked and had not left when it was
//     killed, the process in its pid file, in every pid mode, and what is in
//     the container's own pid namespace without a claim. In a shared pid
//     namespace one process is left to the kill-all of the container's cgroup:
//     that of a runtime that died by itself before it wrote the pid file.
//     What a pid file says is never signalled, only claimed.
//   - Whether a container still exists is asked of the runtime (`state`), never
//     read out of the text of an error.
//
// Of go-runc the answer of State is used. The calls themselves are put together
// here and not by go-runc's functions, because those cannot carry what a call
// needs: they hand an exec.Cmd to one process-wide Monitor, which sees
// neither owner, deadline nor pid namespace; they collect output without a
// bound; they hide the process that must be killed with its tree; and Exec
// encodes the process anew into $XDG_RUNTIME_DIR or /tmp, where a shim that is
// killed leaves it behind. The command line is the one go-runc makes, flag for
// flag: wrappers around a runtime depend on it (--root first, then --log).
//
// Umask: the runtime inherits the shim's, and hands it on to an exec's process
// unless its spec says otherwise. A umask belongs to the whole process (the
// threads share it, clone(2) CLONE_FS), so it cannot be changed around one fork
// while others create files. The serving shim is therefore to run with 022 and
// to create what is private with an explicit mode; New warns if it does not.
package oci
