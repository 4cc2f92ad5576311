// Package version is what lark's binaries say they are.
package version

// Version and Revision are set by the linker in releases:
//
//	-ldflags "-X github.com/larkshim/lark/internal/version.Version=v1.2.3"
var (
	// Version is a semantic version.
	Version = "v0.1.0-dev"
	// Revision is the commit, empty if the build was not told.
	Revision = ""
)
