package fakeruntime

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	profileName = "profile.json"
	journalName = "journal"
	binaryName  = "fakerunc"
	// patience bounds every wait of a test for the runtime. Only a fault comes near it.
	patience = time.Minute
)

func gateName(gate string) string { return "gate-" + gate }

// Control is the test's end of an installed runtime.
type Control struct {
	dir string
}

// Entry is one thing that the runtime has noted: that a call has come to a point.
type Entry struct {
	Command   string
	Container string
	// At is "begin", "before", "forked", "written", "after" or "end"; "started" and "grandchild" when a process was
	// made. A call that was killed has no "end".
	At  string
	Pid int // of the runtime

	// The following are noted at "begin" only.
	Args  []string       `json:",omitempty"`
	Env   []string       `json:",omitempty"`
	Dir   string         `json:",omitempty"`
	FDs   map[int]string `json:",omitempty"` // inherited descriptors and what they are
	Umask int            `json:",omitempty"`
}

// Install makes a runtime with a profile and returns the path of its binary. When the test ends every process that the
// runtime has made and that still lives is killed (reaping is the subreaper's).
func Install(t testing.TB, p Profile) (binary string, ctl *Control) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: its removal fails the test if a runtime that is not dead yet writes a last line.
	dir, err := os.MkdirTemp("", "fakerunc-")
	if err != nil {
		t.Fatal(err)
	}
	ctl = &Control{dir: dir}
	t.Cleanup(func() {
		ctl.killAll()
		os.RemoveAll(dir)
	})
	ctl.Become(t, p)
	binary = filepath.Join(dir, binaryName)
	// A test binary with the race detector would sleep for a second before each exit.
	script := fmt.Sprintf("#!/bin/sh\n%s=%s GORACE=atexit_sleep_ms=0 exec %s \"$@\"\n", dirEnv, quote(dir), quote(self))
	if err := writeExecutable(binary, script); err != nil {
		t.Fatal(err)
	}
	return binary, ctl
}

// writeExecutable writes a file while this process forks nothing: a child that is between fork and exec would have it
// open for writing still when somebody executes it (ETXTBSY, golang.org/issue/22315).
func writeExecutable(path, content string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(content), 0o755)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Become changes the profile, for calls that begin from now on.
func (c *Control) Become(t testing.TB, p Profile) {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.dir, profileName)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// Open opens a gate, for all calls that wait there and that will come.
func (c *Control) Open(t testing.TB, gate string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, gateName(gate)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Root is where containers are kept that were made without --root.
func (c *Control) Root() string { return filepath.Join(c.dir, "root") }

// Journal is everything noted so far, in order.
func (c *Control) Journal(t testing.TB) []Entry {
	t.Helper()
	lines, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	entries := make([]Entry, len(lines))
	for i := range lines {
		entries[i] = lines[i].Entry
	}
	return entries
}

// Calls counts the calls of a command that have begun.
func (c *Control) Calls(t testing.TB, command string) int {
	t.Helper()
	n := 0
	for _, e := range c.Journal(t) {
		if e.Command == command && e.At == "begin" {
			n++
		}
	}
	return n
}

// Reached waits until n calls have come to a point ("create:forked"; every command also has ":begin", ":end",
// ":started" and ":grandchild") and returns the last of them. Steps of that point are taken right after.
func (c *Control) Reached(t testing.TB, at Point, n int) Entry {
	t.Helper()
	var last Entry
	err := awaitChange(c.dir, patience, func() (bool, error) {
		lines, err := c.read()
		found := 0
		for _, l := range lines {
			if Point(l.Command+":"+l.At) == at {
				found++
				last = l.Entry
			}
		}
		return found >= n, err
	})
	if err != nil {
		t.Fatalf("the runtime did not come to %s %d times: %v", at, n, err)
	}
	return last
}

// Processes are the pids of all processes that the runtime has made for containers and that are not dead.
func (c *Control) Processes(t testing.TB) []int {
	t.Helper()
	lines, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, l := range lines {
		for _, p := range l.Started {
			if l.At == "started" && p.alive() {
				pids = append(pids, p.Pid)
			}
		}
	}
	return pids
}

func (c *Control) read() ([]journalled, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, journalName))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var lines []journalled
	for line := range bytes.Lines(b) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		var j journalled
		if err := json.Unmarshal(line, &j); err != nil {
			return nil, err
		}
		lines = append(lines, j)
	}
	return lines, nil
}

// killAll kills what is left, the runtime's own calls too: but only processes that are what was noted.
func (c *Control) killAll() {
	lines, err := c.read()
	if err != nil {
		return
	}
	ended := make(map[int]bool)
	for _, l := range lines {
		ended[l.Pid] = l.At == "end"
		for _, p := range l.Started {
			if p.alive() {
				unix.Kill(p.Pid, unix.SIGKILL)
			}
		}
	}
	for pid, done := range ended {
		if !done && c.isOurs(pid) {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// isOurs says that a process is a call of this runtime: its environment at exec names the directory.
func (c *Control) isOurs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && bytes.Contains(b, []byte(dirEnv+"="+c.dir+"\x00"))
}

// Missing is the path of a runtime that is not there (row 29).
func Missing(t testing.TB) string { return filepath.Join(t.TempDir(), "no-such-runtime") }

// NotExecutable is a file that may not be executed.
func NotExecutable(t testing.TB) string { return file(t, "not-executable", "#!/bin/sh\n", 0o644) }

// Directory is a directory in place of a binary.
func Directory(t testing.TB) string { return t.TempDir() }

// WrongArch is an ELF header of a machine that is none.
func WrongArch(t testing.TB) string {
	header := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	header[16], header[18], header[19], header[20] = 2, 0xff, 0xfe, 1
	return file(t, "wrong-arch", string(header), 0o755)
}

func file(t testing.TB, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := writeExecutable(path, content); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}
