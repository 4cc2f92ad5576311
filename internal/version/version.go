// Package version is what lark's binaries say they are.
package version

import "runtime/debug"

// Version and Revision are set by the linker (build/version.sh):
//
//	-ldflags "-X github.com/larkshim/lark/internal/version.Revision=63a0b90"
var (
	// Version is a semantic version.
	Version = "v0.1.0-dev"
	// Revision is the commit, empty if the build was not told. Commit is what to
	// show.
	Revision = ""
)

// Commit is the revision: the linker's, or else what the go command noted, which
// is how `go install` builds know theirs, or else "unknown".
func Commit() string {
	if Revision != "" {
		return Revision
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
