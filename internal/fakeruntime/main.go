package fakeruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dirEnv names the directory of an installed runtime, and makes the test binary be that runtime.
const dirEnv = "LARK_FAKE_RUNTIME"

// Main runs as the runtime and does not return, if this process was called as one. Call it first in TestMain.
func Main() {
	dir := os.Getenv(dirEnv)
	if dir == "" {
		return
	}
	os.Unsetenv(dirEnv)
	os.Unsetenv("GORACE")
	os.Exit(run(dir, os.Args[1:]))
}

// call is one command line under way.
type call struct {
	dir     string
	profile Profile
	flags   map[string]string
	op, id  string
	args    []string // after the id

	init    *process // create, restore: made; others: the container's
	process *process // exec: made

	pidFile    string // what the pid file will say
	noPidFile  bool
	consoleHow ConsoleFault
}

// exitError ends a call.
type exitError struct {
	code    int
	message string
	quiet   bool // nothing is said
	plain   bool // not in the log
}

func (e *exitError) Error() string { return e.message }

func failf(format string, args ...any) error {
	return &exitError{code: 1, message: fmt.Sprintf(format, args...)}
}

func run(dir string, args []string) int {
	c := &call{dir: dir, flags: make(map[string]string), pidFile: "{pid}"}
	err := c.parse(args)
	if err == nil {
		err = c.load()
	}
	if err == nil {
		c.record("begin")
		err = c.dispatch()
	}
	code := c.report(err)
	c.record("end")
	return code
}

// report says what went wrong the way runc does, and gives the exit code.
func (c *call) report(err error) int {
	if err == nil {
		return 0
	}
	e := &exitError{code: 1, message: err.Error()}
	errors.As(err, &e)
	if e.quiet {
		return e.code
	}
	if log := c.flags["log"]; log != "" && !e.plain {
		c.log("error", e.message)
	}
	fmt.Fprintln(os.Stderr, e.message)
	return e.code
}

func (c *call) log(level, message string) {
	f, err := os.OpenFile(c.flags["log"], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	line, err := json.Marshal(map[string]string{"level": level, "msg": message, "time": time.Now().UTC().Format(time.RFC3339)})
	if err == nil {
		f.Write(append(line, '\n'))
	}
}

// boolean has the flags that take no value.
var boolean = map[string]bool{
	"debug": true, "systemd-cgroup": true, "all": true, "a": true, "force": true, "f": true, "no-pivot": true,
	"no-new-keyring": true, "detach": true, "d": true, "leave-running": true, "tcp-established": true,
	"ext-unix-sk": true, "shell-job": true, "file-locks": true, "no-subreaper": true, "link-remap": true,
	"version": true, "v": true, "auto-dedup": true, "lazy-pages": true, "pre-dump": true,
}

// parse reads runc's kind of command line: flags before and after the command, then the id, then the rest.
func (c *call) parse(args []string) error {
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		name, isFlag := strings.CutPrefix(a, "-")
		switch {
		case isFlag && c.id == "":
			name = strings.TrimPrefix(name, "-")
			name, value, given := strings.Cut(name, "=")
			if !given && !boolean[name] {
				if len(args) == 0 {
					return failf("flag needs an argument: %s", a)
				}
				value, args = args[0], args[1:]
			}
			c.flags[name] = value
		case c.op == "":
			c.op = a
		case c.id == "":
			c.id = a
		default:
			c.args = append(c.args, a)
		}
	}
	if c.has("version") || c.has("v") {
		c.op = Version
	}
	if c.op == "" {
		return failf("no command given")
	}
	return nil
}

func (c *call) has(flag string) bool { _, ok := c.flags[flag]; return ok }

// load reads the profile, and the container that the command is about.
func (c *call) load() error {
	b, err := os.ReadFile(filepath.Join(c.dir, profileName))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &c.profile); err != nil {
		return err
	}
	if c.id != "" && c.op != Create && c.op != Restore {
		_, _ = c.open() // for steps about init; a command that needs the container says so itself
	}
	return nil
}

// root is where the containers are kept; like runc's it must be the same for all calls about one.
func (c *call) root() string {
	if r := c.flags["root"]; r != "" {
		return r
	}
	return filepath.Join(c.dir, "root")
}

func (c *call) dispatch() error {
	commands := map[string]func() error{
		Create: c.create, Start: c.start, Exec: c.exec, Kill: c.kill, Delete: c.delete, Ps: c.ps, State: c.state,
		Pause: c.pause, Resume: c.resume, Update: c.update, Checkpoint: c.checkpoint, Restore: c.restore,
		Features: c.features, Version: c.version,
	}
	command, ok := commands[c.op]
	if !ok {
		return failf("No help topic for '%s'", c.op)
	}
	if err := c.at("before"); err != nil {
		return err
	}
	if err := command(); err != nil {
		return err
	}
	return c.at("after")
}

// at takes the steps of a point of this command.
func (c *call) at(when string) error {
	c.record(when)
	for _, s := range c.profile.Steps[Point(c.op+":"+when)] {
		if s.Only != "" && s.Only != c.id || !c.first(s.Once) {
			continue
		}
		if err := c.take(s); err != nil {
			return err
		}
	}
	return nil
}

// first claims a step that is for one call only.
func (c *call) first(name string) bool {
	if name == "" {
		return true
	}
	f, err := os.OpenFile(filepath.Join(c.dir, "once-"+name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

func (c *call) take(s Step) error {
	switch s.Do {
	case "wait":
		return await(c.dir, gateName(s.Arg), 0)
	case "hang":
		signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
		for {
			unix.Pause()
		}
	case "crash":
		signal.Reset()
		unix.Kill(os.Getpid(), unix.Signal(s.N))
		for {
			unix.Pause()
		}
	case "exit":
		return &exitError{code: int(s.N), quiet: true}
	case "fail":
		return &exitError{code: 1, message: s.Arg}
	case "failplain":
		return &exitError{code: 1, message: s.Arg, plain: true}
	case "flood":
		flood(os.Stderr, s.N)
	case "floodlog":
		return c.floodLog(s.N)
	case "stdout":
		fmt.Print(s.Arg)
	case "pidfile":
		c.pidFile = s.Arg
	case "nopidfile":
		c.noPidFile = true
	case "console":
		c.consoleHow = ConsoleFault(s.Arg)
	case "grandchild":
		return c.grandchild()
	case "killinit":
		return c.killAndWait(c.init, s.N)
	case "killprocess":
		return c.killAndWait(c.process, s.N)
	case "forget":
		return os.RemoveAll(filepath.Join(c.root(), c.id))
	default:
		return failf("the profile has a step %q that does not exist", s.Do)
	}
	return nil
}

func flood(f *os.File, n int64) {
	chunk := []byte(strings.Repeat("fake runtime says nothing, at length. ", 1<<11)[:1<<16])
	for n > 0 {
		w, err := f.Write(chunk[:min(n, int64(len(chunk)))])
		if err != nil {
			return
		}
		n -= int64(w)
	}
}

func (c *call) floodLog(n int64) error {
	for ; n > 0; n -= 1024 {
		c.log("info", strings.Repeat("x", 960))
	}
	return nil
}

// killAndWait kills a process and returns when it is dead, be it reaped or not.
func (c *call) killAndWait(p *process, sig int64) error {
	if p == nil {
		return failf("there is no process to be killed at this point")
	}
	if err := unix.Kill(p.Pid, unix.Signal(sig)); err != nil {
		return err
	}
	return p.waitDead()
}

// journalled is one line of the journal.
type journalled struct {
	Entry
	Started []process `json:",omitempty"`
}

// record writes to the journal that the call has come to a point.
func (c *call) record(point string, started ...process) {
	j := journalled{Entry: Entry{Command: c.op, Container: c.id, At: point, Pid: os.Getpid()}, Started: started}
	if point == "begin" {
		j.Args = os.Args[1:]
		j.Env = os.Environ()
		j.Dir, _ = os.Getwd()
		j.FDs = Inherited()
		j.Umask = umask()
	}
	line, err := json.Marshal(j)
	if err != nil {
		return
	}
	f, err := os.OpenFile(filepath.Join(c.dir, journalName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	f.Write(append(line, '\n')) // one write: lines of calls at the same time do not mix
}

// Inherited lists the descriptors that this process was given through exec, and what they are: those without FD_CLOEXEC,
// as Go opens none of that kind. A test that asks what a shim hands on subtracts what the test itself was given.
func Inherited() map[int]string {
	found := make(map[int]string)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		found[fd], _ = os.Readlink("/proc/self/fd/" + e.Name())
	}
	return found
}

func umask() int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 8, 32)
			if err == nil {
				return int(n)
			}
		}
	}
	return -1
}
