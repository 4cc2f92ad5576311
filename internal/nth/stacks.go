package nth

// stacks.go finds out which goroutine made a descriptor that has leaked. Nobody tells from
// outside a process where in it a call came from; but while the call waits for its verdict
// /proc/PID/task/TID/syscall has its stack pointer (proc_pid_syscall(5)), and what lies above
// that holds the return addresses. They are taken for such if a call instruction stands
// before them. A value that is left of an older call can look like one: a trace may have a
// line too many, never one too few.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

const (
	stackBytes = 8 << 10 // what is kept of a stack
	stacksMost = 3       // how many are told for one descriptor, the latest
)

// opening is a call that may have made a descriptor.
type opening struct {
	call  string
	about string // its path, or what the descriptor is that it works on
	stack []byte // from the stack pointer on
}

// makers are the calls that make descriptors, by what /proc says of these. A file is known by
// its path, a copy by what it is of.
var makers = map[string]string{
	"pipe2": "pipe:", "socket": "socket:", "accept4": "socket:", "memfd_create": "/memfd:", "eventfd2": "anon_inode:[eventfd",
	"inotify_init1": "anon_inode:inotify", "pidfd_open": "pidfd", "clone": "pidfd", "openat": "", "open_tree": "", "dup": "", "fcntl": "",
}

// made says whether the call may have made a descriptor that is target now.
func (o opening) made(target string) bool {
	switch kind := makers[o.call]; {
	case kind != "":
		return strings.Contains(target, kind)
	case o.call == "dup" || o.call == "fcntl":
		return o.about == target
	default: // a path may be relative, or end in a link
		return filepath.Base(o.about) == filepath.Base(target)
	}
}

// note keeps where a call comes from that may make a descriptor. on is what the descriptor is
// that it works on. The call waits meanwhile. mu is held.
func (s *Supervisor) note(c call, on string, pid int, n *notice) {
	if _, makes := makers[c.name]; !makes {
		return
	}
	if c.path != none {
		on = textAt(int(n.pid), n.args[c.path])
	}
	s.openings = append(s.openings, opening{call: c.name, about: on, stack: stackOf(pid, int(n.pid))})
}

// stackOf reads the stack of a thread that waits in a call; empty if that cannot be had.
func stackOf(pid, tid int) []byte {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", pid, tid))
	fields := bytes.Fields(text) // number, six arguments, stack pointer, program counter
	if err != nil || len(fields) != 9 {
		return nil
	}
	sp, err := strconv.ParseUint(string(fields[7]), 0, 64)
	if err != nil {
		return nil
	}
	return memoryAt(tid, sp, stackBytes)
}

// openers are the traces of the calls that may have made a descriptor which is target now.
func (s *Supervisor) openers(target string) (traces []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.openings {
		if o.made(target) {
			traces = append(traces, strings.TrimSpace(o.call+" "+o.about)+trace(o.stack))
		}
	}
	return traces[max(0, len(traces)-stacksMost):]
}

// trace names the functions of a stack, the innermost first. The process is of the same binary
// as this one, so that an address means the same in both.
func trace(stack []byte) string {
	var b strings.Builder
	for ; len(stack) >= 8; stack = stack[8:] {
		pc := uintptr(binary.NativeEndian.Uint64(stack))
		f := runtime.FuncForPC(pc - 1)
		if pc == 0 || f == nil {
			continue
		}
		if f.Name() == "runtime.goexit" { // where every goroutine's stack ends
			break
		}
		if !followsCall(pc) {
			continue
		}
		file, line := f.FileLine(pc - 1)
		fmt.Fprintf(&b, "\n\t%s %s:%d", f.Name(), filepath.Base(file), line)
		// Of functions that are compiled into another f is the innermost.
		if whole := runtime.FuncForPC(f.Entry()); whole != nil && whole.Name() != f.Name() {
			fmt.Fprintf(&b, " in %s", whole.Name())
		}
	}
	return b.String()
}

// Explain tells of descriptors, as [Opened] lists them, which calls since the last Arm may have
// made them, and where those came from.
func (w *Watched) Explain(opened []string) string {
	var b strings.Builder
	for _, descriptor := range opened {
		a, err := w.ask(request{Opened: target(descriptor)})
		fmt.Fprintf(&b, "descriptor %s, which one of %d calls may have made:\n", descriptor, len(a.Openers))
		if err != nil {
			fmt.Fprintln(&b, err)
		}
		for _, trace := range a.Openers {
			fmt.Fprintln(&b, trace)
		}
	}
	return b.String()
}
