package bench

// Where bundles, sockets and the runtime's state lie while something is measured.

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/shimclient"
)

// newHome makes a Home where a daemon's would be: on a tmpfs, which /run is on a host.
// On a disk a third of the time of an exec through the stub is that of the file system
// that makes and removes its pid file, and hides what the shims differ in.
func newHome() (*shimclient.Home, error) { return shimclient.NewHome(stateDir()) }

// stateDir is where TMPDIR says, else the first tmpfs from which programs may be
// executed, as containers' are; else empty, for the system's directory.
func stateDir() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	for _, dir := range []string{"/run", "/dev/shm"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && onTmpfs(fs) && fs.Flags&unix.ST_NOEXEC == 0 {
			return dir
		}
	}
	return ""
}

func onTmpfs(fs unix.Statfs_t) bool { return fs.Type == unix.TMPFS_MAGIC }

// stateKind says what the state lies on, for the reader of a result.
func stateKind() string {
	dir := stateDir()
	if dir == "" {
		dir = os.TempDir()
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil && onTmpfs(fs) {
		return "state on a tmpfs"
	}
	return "state on a disk"
}
