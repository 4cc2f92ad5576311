//go:build linux && (amd64 || arm64) && !lark_plainfork

package children

import (
	"unsafe" // for go:linkname
)

// canVfork tells that this build has the runtime's part.
const canVfork = true

// These are functions of the Go runtime that it keeps for use by linkname
// (go.dev/issue/67401). A Go without them fails to link this package; the build
// tag lark_plainfork then leaves them out.

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// rawVfork is clone(2) without a stack of the child's own. It returns twice.
// pidfd is where the kernel puts the pidfd.
//
//go:noescape
func rawVfork(flags uintptr, pidfd unsafe.Pointer) (pid, errno uintptr)

// runSteps makes n system calls and does not return: the last one is execve. If
// one fails that must not, its error number goes to the report, and the process
// exits.
//
//go:noescape
func runSteps(first *step, n uintptr, r *report)

// vfork forks, and returns when the child has executed its program or has
// exited. In between the goroutine counts as being in a system call that blocks:
// its P is given to others at once, and a collection reads its stack above this
// frame and does not move it.
//
// The order matters. exitsyscall may wait for a P, which is forbidden between
// beforeFork and afterFork. No signal is handled in between: the child runs on
// this thread's stack and in this program's memory.
//
//go:nosplit
//go:noinline
//go:norace
func vfork(s *script) (pid, errno uintptr) {
	entersyscallblock()
	beforeFork()
	pid, errno = vforkChild(s)
	afterFork()
	exitsyscall()
	return pid, errno
}

// vforkChild has a frame of its own, as the child overwrites the frame that it
// runs in. The parent leaves the frame at once.
//
//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func vforkChild(s *script) (pid, errno uintptr) {
	pid, errno = rawVfork(s.flags, unsafe.Pointer(s.pidfd))
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	// In the child. Signals that this program handles get their default action,
	// ignored ones stay ignored, and the thread's mask is restored.
	afterForkInChild()
	runSteps(&s.steps[0], uintptr(len(s.steps)), &s.report)
	return 0, 0 // not reached
}
