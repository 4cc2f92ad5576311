package nth

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// World stands for the errors by which a call says that the world is not as it
// was: a file is not there any more, or no directory, or may not be opened, a
// process or a device is gone. Each call gets one of those that it can end
// with, in turn.
const World = unix.Errno(0xfff)

// worldly are the errors that World stands for.
var worldly = []unix.Errno{unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ESRCH, unix.ENODEV}

// WorldEnv, set to "full", makes [Worlds] try each of the errors at each call.
const WorldEnv = "LARK_NTH_WORLD"

// Worlds are the faults of the world to try: World, or all that it stands for.
func Worlds() []unix.Errno {
	if os.Getenv(WorldEnv) == "full" {
		return worldly
	}
	return []unix.Errno{World}
}

// IsWorld reports whether a fault is one of the world.
func IsWorld(errno unix.Errno) bool { return errno == World || slices.Contains(worldly, errno) }

// world has the errors of the world that a call can end with. A call that
// removes something does not say here that it is gone: nothing could be done
// about what is left then, and nothing would be told. clone(2) stands for the
// fork and what follows it in the child, chdir(2) and execve(2).
var world = map[string][]unix.Errno{
	"openat":            {unix.ENOENT, unix.EACCES, unix.ENOTDIR, unix.ENODEV, unix.ESRCH},
	"open_tree":         {unix.ENOENT, unix.EACCES, unix.ENOTDIR},
	"newfstatat":        {unix.ENOENT, unix.EACCES, unix.ENOTDIR},
	"readlinkat":        {unix.ENOENT, unix.EACCES, unix.ESRCH},
	"unlinkat":          {unix.EACCES, unix.ENOTDIR},
	"mkdirat":           {unix.ENOENT, unix.EACCES, unix.ENOTDIR},
	"renameat":          {unix.ENOENT, unix.EACCES, unix.ENOTDIR},
	"symlinkat":         {unix.ENOENT, unix.EACCES, unix.ENOTDIR},
	"fchmodat":          {unix.ENOENT, unix.EACCES},
	"mount":             {unix.ENOENT, unix.EACCES, unix.ENODEV},
	"umount2":           {unix.EACCES},
	"bind":              {unix.ENOENT, unix.EACCES, unix.ENOTDIR},
	"inotify_add_watch": {unix.ENOENT, unix.EACCES},
	"clone":             {unix.ENOENT, unix.EACCES, unix.ENOTDIR},
	"read":              {unix.ENODEV, unix.ESRCH},
	"write":             {unix.ENODEV, unix.EACCES},
}

// ofWorld reports whether the call can end with an error of the world. on is
// what its descriptor is.
func (c call) ofWorld(errno unix.Errno, on string) bool {
	switch c.nr {
	case unix.SYS_READ, unix.SYS_WRITE:
		if !strings.HasPrefix(on, "/proc/") && !strings.HasPrefix(on, "/sys/fs/cgroup/") {
			return false
		}
	}
	return errno == World && len(world[c.name]) > 0 || slices.Contains(world[c.name], errno)
}

// answer is the error that the n-th call gets.
func (f Fault) answer(c call, n int) unix.Errno {
	if f.Errno != World {
		return f.Errno
	}
	return world[c.name][n%len(world[c.name])]
}
