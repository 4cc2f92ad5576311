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
