package shimclient

// Holding, finding and ending processes that are not our children.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// held is a process held by a pidfd, so that nothing else can be meant by it.
type held struct {
	pid  int
	file *os.File
}

// hold opens a pidfd. The caller looks again afterwards whether the process is the one
// that it meant.
func hold(pid int) (*held, error) {
	fd, err := unix.PidfdOpen(pid, 0) // close-on-exec by itself: pidfd_open(2)
	if err != nil {
		return nil, fmt.Errorf("hold process %d: %w", pid, err)
	}
	return &held{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// kill sends SIGKILL; a process that is gone is no error.
func (h *held) kill() error {
	err := unix.PidfdSendSignal(int(h.file.Fd()), unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// ended waits until the process has ended (a zombie counts) or ctx is done.
func (h *held) ended(ctx context.Context) bool {
	for {
		fds := []unix.PollFd{{Fd: int32(h.file.Fd()), Events: unix.POLLIN}}
		// A short poll rather than the Go poller: this waits for one process, seldom.
		n, err := unix.Poll(fds, int(pollSlice.Milliseconds()))
		if n > 0 && err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
	}
}

func (h *held) close() { h.file.Close() }

// killHeld kills what pids lists, each only if still says of it yes once it is held, and
// repeats until nothing is listed or the time is up.
func killHeld(ctx context.Context, list func() []int, still func(pid int) bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	for {
		pids := list()
		if len(pids) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("processes %v do not die", pids)
		}
		for _, pid := range pids {
			h, err := hold(pid)
			if err != nil {
				continue // gone since it was listed
			}
			if still(pid) {
				err = h.kill()
			}
			h.close()
			if err != nil {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		pause(ctx, removeRetry)
	}
}

// killBelow kills every process whose working directory is dir or below it. A shim and
// the runtime calls that it makes work in the bundle, which is private to us.
func killBelow(ctx context.Context, dir string) error {
	return killHeld(ctx, func() []int { return processesIn(dir) }, func(pid int) bool { return worksIn(pid, dir) })
}

// processesIn lists the processes, ourselves and zombies excepted, that work below dir.
func processesIn(dir string) []int {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil // the pattern is constant: it cannot be malformed
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(filepath.Base(e)); err == nil && pid != os.Getpid() && worksIn(pid, dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// worksIn is false for a zombie: its cwd cannot be read.
func worksIn(pid int, dir string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	cwd = strings.TrimSuffix(cwd, " (deleted)")
	return err == nil && (cwd == dir || strings.HasPrefix(cwd, dir+"/"))
}

// pause waits for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
