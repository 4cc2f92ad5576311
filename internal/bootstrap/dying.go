package bootstrap

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// awaitDying waits until no process that works in dir is about to die of a SIGKILL.
// The calls of the OCI runtime get one when their shim dies, but the system call that
// such a process is in comes to its end first, and may make one more cgroup after
// delete has removed all there were. The context ends the wait.
func awaitDying(ctx context.Context, dir string) {
	for anyDying(dir) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(removePause):
		}
	}
}

func anyDying(dir string) bool {
	processes, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, proc := range processes {
		// Not readable for one that has come so far that it makes nothing any more.
		if cwd, err := os.Readlink(proc + "/cwd"); err != nil || cwd != dir {
			continue
		}
		tasks, _ := filepath.Glob(proc + "/task/[0-9]*/status")
		for _, status := range tasks {
			if text, err := os.ReadFile(status); err == nil && killPending(text) {
				return true
			}
		}
	}
	return false
}

// killPending reads proc_pid_status(5): the masks of pending signals, of the thread and
// of its process.
func killPending(status []byte) bool {
	const bit = 1 << (unix.SIGKILL - 1)
	for line := range bytes.Lines(status) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		if k := string(key); k != "SigPnd" && k != "ShdPnd" {
			continue
		}
		mask, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		if err == nil && mask&bit != 0 {
			return true
		}
	}
	return false
}
