package bench

import (
	"testing"

	"golang.org/x/sys/unix"
)

// State lies on a tmpfs wherever there is one, and where the user wants it if he says so.
func TestStateDir(t *testing.T) {
	t.Setenv("TMPDIR", "/somewhere")
	if dir := stateDir(); dir != "/somewhere" {
		t.Errorf("TMPDIR is not heeded: %q", dir)
	}
	t.Setenv("TMPDIR", "")
	dir := stateDir()
	if dir == "" {
		if stateKind() != "state on a disk" {
			t.Errorf("no tmpfs, and it is said: %s", stateKind())
		}
		return
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type != unix.TMPFS_MAGIC || fs.Flags&unix.ST_NOEXEC != 0 || stateKind() != "state on a tmpfs" {
		t.Errorf("%s has the type %x and the flags %x; it is said: %s", dir, fs.Type, fs.Flags, stateKind())
	}
}
