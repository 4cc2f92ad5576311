package oci

// pidfile.go reads the one number that a runtime tells us about the process it
// made. Upstream takes whatever strconv makes of it, and -1 became kill(-1).

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
)

// parsePid reads a pid file: decimal digits and at most one newline, between 2
// and maxPid, not our own. Anything else is Internal: the runtime broke its
// word. That the pid is our child is proved later, by Window.Claim.
func parsePid(data []byte) (int, error) {
	if n := len(data); n > 0 && data[n-1] == '\n' {
		data = data[:n-1]
	}
	if len(data) == 0 {
		return 0, badPid(data, "is empty")
	}
	pid := 0
	for _, c := range data {
		if c < '0' || c > '9' {
			return 0, badPid(data, "is not a number")
		}
		if pid = pid*10 + int(c-'0'); pid > maxPid {
			return 0, badPid(data, "is out of range")
		}
	}
	switch {
	case data[0] == '0' || pid < 2:
		return 0, badPid(data, "names no process of a container")
	case pid == os.Getpid():
		return 0, badPid(data, "names the shim itself")
	}
	return pid, nil
}

func badPid(data []byte, why string) error {
	if len(data) > pidFileMax {
		data = data[:pidFileMax]
	}
	return fmt.Errorf("pid file %q %s: %w", data, why, errdefs.ErrInternal)
}

// readPidFile reads and parses the pid file that a call has just written.
func (r *Runtime) readPidFile(path string) (int, error) {
	data, err := r.files.readFile(path, pidFileMax)
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("the runtime wrote no pid file: %w", errdefs.ErrInternal)
	}
	if err != nil {
		return 0, err
	}
	return parsePid(data)
}
