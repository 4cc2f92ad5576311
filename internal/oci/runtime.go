package oci

// runtime.go: what is the same for all calls of one container.

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
)

// The runtime's commands, as they stand on its command line.
const (
	opCreate     = "create"
	opStart      = "start"
	opExec       = "exec"
	opRestore    = "restore"
	opKill       = "kill"
	opDelete     = "delete"
	opPause      = "pause"
	opResume     = "resume"
	opUpdate     = "update"
	opPids       = "ps"
	opState      = "state"
	opCheckpoint = "checkpoint"
	opFeatures   = "features"
	opVersion    = "--version"
	opLookup     = "" // not a command: the search for the binary
)

// logName is the runtime's log in the bundle.
const logName = "log.json"

// wantedUmask is the umask that a runtime and the processes of its execs expect.
const wantedUmask = 0o022

// Config says which runtime, and on whose behalf.
type Config struct {
	// Binary is the runtime: a bare name, looked up in PATH, or an absolute
	// path. Empty means runc.
	Binary string
	// Root is where the runtime keeps its state, the namespace included; passed
	// as --root. Empty leaves the runtime's default.
	Root string
	// SystemdCgroup makes the runtime ask systemd for cgroups.
	SystemdCgroup bool
	// Dir is the bundle: an absolute path, the working directory of every call,
	// and where log.json lies.
	Dir string
	// Owner owns the processes that calls are.
	Owner *children.Owner
	// Log may be nil.
	Log *slog.Logger
	// Deadlines bounds the calls. The zero value takes the defaults.
	Deadlines Deadlines
}

// Runtime calls the OCI runtime for one container. All methods may be called
// from any goroutine at any time; none holds a lock during a call.
type Runtime struct {
	owner     *children.Owner
	log       *slog.Logger
	files     files
	binary    string   // absolute
	name      string   // as configured: argv[0]
	root      string   // "" for the runtime's own
	dir       string   // the bundle
	logPath   string   // log.json in it
	tail      []string // global arguments behind --log
	env       []string
	deadlines Deadlines
}

// New finds the runtime's binary and prepares its command line. The error is
// FailedPrecondition, with the quoted name, if there is no such binary or it
// cannot be executed, InvalidArgument for a relative path.
func New(c Config) (*Runtime, error) {
	if c.Owner == nil || !filepath.IsAbs(c.Dir) {
		return nil, fmt.Errorf("oci: an owner and an absolute bundle are needed, not %q: %w", c.Dir, errdefs.ErrInvalidArgument)
	}
	closeOnExec()
	env := environment(os.Environ())
	binary, err := lookup(c.Binary, pathOf(env))
	if err != nil {
		return nil, err
	}
	r := &Runtime{
		owner: c.Owner, log: c.Log, files: host{},
		binary: binary, name: c.Binary, root: c.Root,
		dir: c.Dir, logPath: filepath.Join(c.Dir, logName),
		tail: []string{"--log-format", "json"},
		env:  env, deadlines: c.Deadlines,
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.name == "" {
		r.name = defaultBinary
	}
	if c.SystemdCgroup {
		r.tail = append(r.tail, "--systemd-cgroup")
	}
	if r.deadlines == (Deadlines{}) {
		r.deadlines = DefaultDeadlines()
	}
	if mask, err := ownUmask(); err == nil && mask != wantedUmask {
		r.log.Warn("execs will inherit an unusual umask", "umask", fmt.Sprintf("%04o", mask))
	}
	return r, nil
}

// Binary returns the absolute path of the runtime.
func (r *Runtime) Binary() string { return r.binary }

// KillIsSignal reports whether the runtime's kill, without --all, does no more than
// signal init and thaw the container's cgroup: so do runc, crun and youki. It goes
// by the program's name, since to ask the program would cost what is to be saved.
func (r *Runtime) KillIsSignal() bool {
	switch filepath.Base(r.binary) {
	case "runc", "crun", "youki":
		return true
	}
	return false
}

// argv is a whole command line. --root stands first and --log second, where
// wrappers look for them.
func (r *Runtime) argv(logPath string, args []string) []string {
	argv := make([]string, 0, 5+len(r.tail)+len(args))
	argv = append(argv, r.name)
	if r.root != "" {
		argv = append(argv, "--root", r.root)
	}
	argv = append(argv, "--log", logPath)
	argv = append(argv, r.tail...)
	return append(argv, args...)
}

// closeOnExec marks every descriptor from 3 on, so that what this process has
// inherited without knowing ends here: a runtime passes what it finds on to a
// container (CVE-2024-21626). All that lark opens is marked already. Linux before
// 5.11 does not know the flag; there is nothing better to do then.
func closeOnExec() {
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
}

// ownUmask is the process's umask, read once: nothing here changes it.
var ownUmask = sync.OnceValues(umask)

// umask reads the process's umask without setting it: umask(2) can only
// exchange it, and for that moment others would create files with the wrong one.
func umask() (int, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			m, err := strconv.ParseInt(strings.TrimSpace(v), 8, 32)
			return int(m), err
		}
	}
	return 0, errors.New("the kernel does not tell the umask")
}
