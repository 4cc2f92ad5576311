package nth

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const auditArch = unix.AUDIT_ARCH_X86_64

// archCalls are those that are called otherwise elsewhere.
var archCalls = []call{
	{"newfstatat", unix.SYS_NEWFSTATAT, none, 1, []unix.Errno{eio}},
	{"poll", unix.SYS_POLL, none, none, []unix.Errno{eintr}},
}

// followsCall says whether a call instruction stands before an address in the text: near and
// relative (E8, five bytes), or by a register or by memory that one points to (FF /2).
func followsCall(pc uintptr) bool {
	before := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), pc-7)), 7)
	if before[2] == 0xe8 {
		return true
	}
	for n := 2; n <= 7; n++ { // the bytes of an indirect call
		if before[7-n] == 0xff && before[8-n]>>3&7 == 2 {
			return true
		}
	}
	return false
}
