// Package nth makes the N-th system call of a process fail, for tests that try every N.
//
// The seams inside lark's packages are each their own; a scenario of internal/task goes
// through six of them, and through code that has none (os, net, the bundle). The one
// place where all of it passes is the kernel's door. So the process under test asks for a
// seccomp filter there (seccomp_unotify(2)): each call of the table in calls.go waits for
// the test, which lets it go on or answers it with an errno, without the call having been
// made. Nothing in the program is changed for it, and every goroutine is counted.
//
// The process under test is the test binary, run again: by itself as one of lark's
// commands, or as one test, of which the first run is the [Supervisor] and the second
// finds by [Join] that it is the one to be watched. Only the process that joined is
// counted: what it forks has the filter too, but is waved through.
//
// A call that makes a descriptor is remembered with the stack it came from, so that of one
// that leaks it can be told who has made it ([Watched.Explain]).
//
// That a fault happened is certain: the kernel says whether its answer was delivered
// (a call that a signal interrupts while it waits is asked about again, and counts once).
//
// A fault can also be one of the world ([World]): a file, a process or a device is not there.
// LARK_NTH_WORLD=full tries each of its errors at each call.
//
// Linux 5.7 and root are needed, as for the other tests. The package is for tests alone.
package nth
