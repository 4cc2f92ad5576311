//go:build linux && (amd64 || arm64)

// Package nofile remembers the limit of open files that this program was
// started with. Package syscall raises the soft limit in its initialization, for
// this program alone: what it forks has to get the old one back.
//
// Packages are initialized in the order of their paths as soon as everything
// that they import is (the Go specification, "Program initialization"). This one
// imports nothing, and its path sorts before "syscall". So it reads the limit
// before it is raised. For the same reason it makes the system call itself.
package nofile

// Limit is struct rlimit64.
type Limit struct{ Soft, Hard uint64 }

// inherited is RLIMIT_NOFILE at the start of the program, zero if it could not be
// read.
var inherited = read()

func read() (lim Limit) {
	if prlimit(&lim) != 0 {
		return Limit{}
	}
	return lim
}

// prlimit reads this process's RLIMIT_NOFILE by prlimit(2).
//
//go:noescape
func prlimit(into *Limit) (errno uintptr)

// Restore gives the limit that a child must set, and false where it has none to
// set: the limit was not raised, or was changed since (setrlimit(2) by this
// program, prlimit(2) by another).
func Restore() (Limit, bool) {
	now := read()
	// Package syscall raises the soft limit to one less than the hard limit.
	raised := inherited.Hard != 0 && now.Hard == inherited.Hard && now.Soft == now.Hard-1
	return inherited, raised && now.Soft != inherited.Soft
}
