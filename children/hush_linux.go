package children

// Silence while a sweep is armed. Two SIGCHLDs come with every exec, and each interrupts a thread, mostly one that must
// be woken for it, which wakes another: 6 % of the CPU of an exec that is alone, and as good as nothing is learnt by the
// second.

import (
	"sync"
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

// silence is how many are hushing, and what was before the first of them.
var silence struct {
	sync.Mutex
	depth int
	was   disposition
}

// hush makes SIGCHLD do nothing, until listen is called, which brings back what was before. With SIG_DFL the kernel does
// not even queue it (sig_ignored in kernel/signal.c), while a dead child becomes a zombie as ever: only SIG_IGN would
// reap it (wait(2)). What must be seen is looked for after listen. If it cannot be done nothing changes.
//
// The disposition is the program's. Of several that hush at once the last to listen brings back what was before the
// first: one that took the silence of another for what was before would make it last for ever.
func hush() (listen func()) {
	silence.Lock()
	defer silence.Unlock()
	if silence.depth == 0 && sigaction(unix.SIGCHLD, new(disposition), &silence.was) != nil {
		return func() {}
	}
	silence.depth++
	return func() {
		silence.Lock()
		defer silence.Unlock()
		if silence.depth--; silence.depth == 0 {
			_ = sigaction(unix.SIGCHLD, &silence.was, nil)
		}
	}
}
