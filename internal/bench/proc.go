package bench

// What the kernel says of a shim's process.

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cpuOf is the user and system time of the process itself, without its children's:
// fields 14 and 15 of proc_pid_stat(5).
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseCPU(text)
}

// parseCPU reads utime and stime of a stat text. The second field may hold blanks and
// parentheses, so counting begins after the last one.
func parseCPU(text []byte) (time.Duration, error) {
	const utime, stime = 11, 12 // after the command's closing parenthesis
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) <= stime {
		return 0, errors.New("a stat line that is too short")
	}
	u, err := strconv.ParseUint(fields[utime], 10, 63)
	if err != nil {
		return 0, err
	}
	s, err := strconv.ParseUint(fields[stime], 10, 63)
	if err != nil {
		return 0, err
	}
	return time.Duration(u+s) * tick, nil
}

// fineCPUOf adds up what the scheduler says of each thread, in nanoseconds. Threads that
// have ended are missing, which Go's never do while nothing is amiss; for differences
// over short times it is far finer than the ticks of cpuOf.
func fineCPUOf(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	if len(threads) == 0 {
		return 0, os.ErrProcessDone
	}
	var total time.Duration
	for _, t := range threads {
		text, err := os.ReadFile(t)
		if err != nil {
			continue // ended since it was listed
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", t, err)
		}
		total += time.Duration(ns)
	}
	return total, nil
}

// footprint is what a process occupies; sizes in bytes.
type footprint struct {
	Resident, Proportional, Private, Anonymous float64
	Threads, Descriptors                       float64
}

// footprintOf reads smaps_rollup, the number of threads and of descriptors.
func footprintOf(pid int) (footprint, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return footprint{}, err
	}
	f := parseRollup(text)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return footprint{}, err
	}
	f.Threads = field(status, "Threads:")
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return footprint{}, err
	}
	f.Descriptors = float64(len(fds))
	return f, nil
}

// parseRollup reads the sizes, which the kernel gives in kB (1,024 bytes).
func parseRollup(text []byte) footprint {
	const kB = 1024
	return footprint{
		Resident:     kB * field(text, "Rss:"),
		Proportional: kB * field(text, "Pss:"),
		Private:      kB * (field(text, "Private_Clean:") + field(text, "Private_Dirty:")),
		Anonymous:    kB * field(text, "Anonymous:"),
	}
}

// field is the number after a name at the beginning of a line, or 0.
func field(text []byte, name string) float64 {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			f := strings.Fields(rest)
			if len(f) == 0 {
				return 0
			}
			n, err := strconv.ParseFloat(f[0], 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
