package children

// What is read from /proc: a process's parent, state and start time, its pid namespace, its children.

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// stat is what this package reads in /proc/PID/stat. It stays readable until the process is reaped.
type stat struct {
	state  byte
	parent int
	start  uint64 // ticks of CLOCK_BOOTTIME, rounded down
}

// dead says whether the process has exited: a zombie, or one that is being reaped.
func (s stat) dead() bool { return s.state == 'Z' || s.state == 'X' }

var errMalformed = errors.New("malformed")

// parseStat parses /proc/PID/stat. See proc(5): "pid (comm) state ppid ... starttime ...", where comm may hold anything,
// parentheses and newlines included.
func parseStat(text []byte) (stat, error) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return stat{}, fmt.Errorf("stat: no command: %w", errMalformed)
	}
	const parentField, startField = 1, 19 // counted from state
	var s stat
	rest := text[end+1:]
	for i := 0; i <= startField; i++ {
		rest = bytes.TrimLeft(rest, " ")
		field := rest
		if n := bytes.IndexAny(rest, " \n"); n >= 0 {
			field = rest[:n]
		}
		rest = rest[len(field):]
		if len(field) == 0 {
			return stat{}, fmt.Errorf("stat: field %d is missing: %w", i+3, errMalformed)
		}
		var err error
		switch i {
		case 0:
			if s.state = field[0]; s.state < 'A' || s.state > 'z' {
				err = errMalformed
			}
		case parentField:
			s.parent, err = strconv.Atoi(string(field))
		case startField:
			s.start, err = strconv.ParseUint(string(field), 10, 64)
		}
		if err != nil {
			return stat{}, fmt.Errorf("stat: field %d: %w: %w", i+3, errMalformed, err)
		}
	}
	return s, nil
}

// statOf reads a process's stat. The pid may be given away at any time unless something pins it: the caller must make
// sure, after the call, that the process it means was there all along.
func statOf(sys system, pid int) (stat, error) {
	buf := statBuffers.Get().(*[statSize]byte)
	defer statBuffers.Put(buf)
	var n int
	err := retry(func() (err error) {
		n, err = sys.readFile(procPath(pid, "/stat"), buf[:])
		return err
	})
	if err != nil {
		return stat{}, err
	}
	return parseStat(buf[:n])
}

// statBuffers are those of statOf, which would be garbage of 1.5 kB per claim.
var statBuffers = sync.Pool{New: func() any { return new([statSize]byte) }}

// parsePIDNamespace parses what /proc/PID/ns/pid links to: "pid:[4026531836]".
func parsePIDNamespace(link string) (uint64, error) {
	digits, ok := strings.CutPrefix(link, "pid:[")
	if ok {
		digits, ok = strings.CutSuffix(digits, "]")
	}
	if !ok {
		return 0, fmt.Errorf("namespace %q: %w", link, errMalformed)
	}
	ino, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || ino == 0 {
		return 0, fmt.Errorf("namespace %q: %w", link, errMalformed)
	}
	return ino, nil
}

// otherNS stands for a pid namespace below our own that cannot be told apart from
// others: see namespaceOf.
const otherNS = 0

// namespaceOf gives the inode of the pid namespace in which a process lives. It stays readable until the process is
// reaped. As for statOf, the caller makes sure of the identity.
//
// Without CAP_SYS_PTRACE the link of another user's process cannot be read
// (EACCES, PTRACE_MODE_READ_FSCREDS in proc_pid_ns(5)). Then the number of the
// process's pids, one for each namespace from ours down (NSpid in
// proc_pid_status(5), Linux 4.1), still tells whether it lives in ours, own, or in
// one below, otherNS.
func namespaceOf(sys system, pid int, own uint64) (uint64, error) {
	var link string
	err := retry(func() (err error) {
		link, err = sys.readLink(procPath(pid, "/ns/pid"))
		return err
	})
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return namespaceByDepth(sys, pid, own)
	case err != nil:
		return 0, err
	}
	return parsePIDNamespace(link)
}

// namespaceByDepth gives own for a process that has one pid, otherNS for one that
// has more.
func namespaceByDepth(sys system, pid int, own uint64) (uint64, error) {
	text, err := readAll(sys, procPath(pid, "/status"), nil)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		pids, ok := bytes.CutPrefix(line, []byte("NSpid:"))
		if !ok {
			continue
		}
		switch len(bytes.Fields(pids)) {
		case 0:
		case 1:
			return own, nil
		default:
			return otherNS, nil
		}
	}
	return 0, fmt.Errorf("status: no NSpid: %w", errMalformed)
}

// parsePids parses numbers separated by white space, as in a children file or a cgroup.procs.
func parsePids(text []byte, into []int) ([]int, error) {
	for _, field := range bytes.Fields(text) {
		pid, err := strconv.Atoi(string(field))
		if err != nil {
			return into, fmt.Errorf("list of pids: %w: %w", errMalformed, err)
		}
		into = append(into, pid)
	}
	return into, nil
}

// readAll reads a whole file of /proc or of a cgroup in one read as far as that can be: what such a file says between
// two reads need not fit together.
//
// The text lies in buf if that is large enough.
func readAll(sys system, path string, buf []byte) ([]byte, error) {
	for size := max(listSize, len(buf)); ; size *= 2 {
		if len(buf) < size {
			buf = make([]byte, size)
		}
		var n int
		err := retry(func() (err error) {
			n, err = sys.readFile(path, buf)
			return err
		})
		if err != nil {
			return nil, err
		}
		if n < size {
			return buf[:n], nil
		}
	}
}

// gone says whether an error of /proc means that the process or thread is no longer there.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
}

// childrenOf lists the children of all threads of a process; "self" may be given for our own. proc(5) warns that the list
// may miss some while children come and go.
func childrenOf(sys system, process string) ([]int, error) {
	dir := "/proc/" + process + "/task"
	var threads []string
	err := retry(func() (err error) {
		threads, err = sys.subDirs(dir)
		return err
	})
	if err != nil {
		return nil, err
	}
	var pids []int
	buf := make([]byte, listSize)
	for _, thread := range threads {
		text, err := readAll(sys, dir+"/"+thread+"/children", buf)
		if gone(err) {
			continue // the thread has ended; its children have gone to another one
		}
		if err != nil {
			return nil, err
		}
		if pids, err = parsePids(text, pids); err != nil {
			return nil, err
		}
	}
	return pids, nil
}
