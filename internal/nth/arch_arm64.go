package nth

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// archCalls are those that are called otherwise elsewhere.
var archCalls = []call{
	{"newfstatat", unix.SYS_FSTATAT, none, 1, []unix.Errno{eio}},
	{"ppoll", unix.SYS_PPOLL, none, none, []unix.Errno{eintr}},
}
