package nth

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const auditArch = unix.AUDIT_ARCH_AARCH64

// archCalls are those that are called otherwise elsewhere.
var archCalls = []call{
	{"newfstatat", unix.SYS_FSTATAT, none, 1, []unix.Errno{eio}},
	{"ppoll", unix.SYS_PPOLL, none, none, []unix.Errno{eintr}},
}

// followsCall says whether a call instruction stands before an address in the text: BL, or
// BLR with any register.
func followsCall(pc uintptr) bool {
	before := *(*uint32)(unsafe.Add(unsafe.Pointer(nil), pc-4))
	return before>>26 == 0x25 || before&0xfffffc1f == 0xd63f0000
}
