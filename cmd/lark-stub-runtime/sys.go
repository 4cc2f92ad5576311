package main

// System calls, below everything else.

// Flags and numbers that are the same on all architectures that Go calls Linux here.
const (
	atCwd       = ^uintptr(99) // AT_FDCWD, -100
	oRdonly     = 0
	oWronly     = 1
	oCreat      = 0o100
	oTrunc      = 0o1000
	oCloexec    = 0o2000000
	sigKill     = 9
	sigChld     = 17
	cloneNewPID = 0x20000000
)

// syscall6 makes a system call and returns its result, a negative one being an error.
//
//go:noescape
func syscall6(number, a, b, c, d, e, f uintptr) int

// entry is where the kernel enters when the program is linked with -E main.entry.
func entry()

//go:nosplit
func syscall3(number, a, b, c uintptr) int { return syscall6(number, a, b, c, 0, 0, 0) }

// fork is clone(2) without sharing anything; the child returns 0 on a copy of the stack.
//
//go:nosplit
func fork(flags uintptr) int { return syscall6(sysClone, flags|sigChld, 0, 0, 0, 0, 0) }

//go:nosplit
func exit(status int) {
	for {
		syscall3(sysExitGroup, uintptr(status), 0, 0)
	}
}
