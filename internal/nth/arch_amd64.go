package nth

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// archCalls are those that are called otherwise elsewhere.
var archCalls = []call{
	{"newfstatat", unix.SYS_NEWFSTATAT, none, 1, []unix.Errno{eio}},
	{"poll", unix.SYS_POLL, none, none, []unix.Errno{eintr}},
}
