package children

// Silence while a sweep is armed. Two SIGCHLDs come with every exec, and each interrupts a thread, mostly one that must
// be woken for it, which wakes another: 6 % of the CPU of an exec that is alone, and as good as nothing is learnt by the
// second.

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// disposition is the kernel's struct sigaction, as it lies in memory on 64-bit Linux: handler, flags, restorer and mask.
// It is only taken and given back. Of zeros it means SIG_DFL.
type disposition [4]uint64

// sigaction is rt_sigaction(2). Go's own, os/signal, would leave the runtime's handler in place, which is what costs.
func sigaction(sig unix.Signal, set, old *disposition) error {
	const maskSize = 8
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(set)),
		uintptr(unsafe.Pointer(old)), maskSize, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// hush makes SIGCHLD do nothing, until listen is called, which brings back what was before. With SIG_DFL the kernel does
// not even queue it (sig_ignored in kernel/signal.c), while a dead child becomes a zombie as ever: only SIG_IGN would
// reap it (wait(2)). What must be seen is looked for after listen. If it cannot be done nothing changes.
func hush() (listen func()) {
	var was disposition
	if sigaction(unix.SIGCHLD, new(disposition), &was) != nil {
		return func() {}
	}
	return func() { _ = sigaction(unix.SIGCHLD, &was, nil) }
}
