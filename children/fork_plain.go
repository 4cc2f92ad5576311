//go:build !linux || !(amd64 || arm64) || lark_plainfork

package children

// canVfork tells that this build has no part of the runtime's: Go's own fork is
// used, which holds its P until the child has executed its program.
const canVfork = false

func vfork(*script) (pid, errno uintptr) { panic("children: this build has no vfork") }
