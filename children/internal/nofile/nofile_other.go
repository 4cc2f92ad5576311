//go:build !(linux && (amd64 || arm64))

// Package nofile has nothing to do here: forks are made by package syscall,
// which restores the limit of open files itself.
package nofile

// Limit is a limit of open files.
type Limit struct{ Soft, Hard uint64 }

// Restore gives no limit.
func Restore() (Limit, bool) { return Limit{}, false }
