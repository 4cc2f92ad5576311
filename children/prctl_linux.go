package children

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// prctlGetSubreaper asks whether this program is a subreaper. The kernel writes an int.
func prctlGetSubreaper(is *int) error {
	var v int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&v)), 0, 0, 0)
	*is = int(v)
	return err
}

// maySeeNamespaces says whether this program has CAP_SYS_PTRACE, without which
// /proc/PID/ns/pid of another user's process cannot be read.
func maySeeNamespaces() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_PTRACE) != 0
}
