// Package fakeruntime is an OCI runtime for tests. It runs containers that are plain processes, needs neither root
// filesystem nor privileges, keeps to runc's command line, and misbehaves at will: a Profile says what each of its
// commands does besides, and at which point.
//
// The test binary plays it: TestMain calls Main first, and Install gives a path that runs the test binary as the
// runtime with one profile. That path works for whoever calls it, so also for a shim that is a process of its own.
//
// Races are scripts here and not sleeps: a step may wait for a gate that the test opens (Wait, Control.Open), and the
// test may wait until the runtime has come to a point (Control.Reached).
package fakeruntime

// Point is a place in a command at which steps are taken.
type Point string

// The commands, by runc's names.
const (
	Create     = "create"
	Start      = "start"
	Exec       = "exec"
	Kill       = "kill"
	Delete     = "delete"
	Ps         = "ps"
	State      = "state"
	Pause      = "pause"
	Resume     = "resume"
	Update     = "update"
	Checkpoint = "checkpoint"
	Restore    = "restore"
	Features   = "features"
	Version    = "--version"
)

// Before is when a command has read its arguments and done nothing.
func Before(command string) Point { return Point(command + ":before") }

// Forked is when create, exec or restore has made its process, but the pid file is not written. Init of create waits
// for start; the processes of the others run already.
func Forked(command string) Point { return Point(command + ":forked") }

// Written is when the pid file of create, exec or restore is there, and the container known.
func Written(command string) Point { return Point(command + ":written") }

// After is when a command has done all that it should, but has not returned.
func After(command string) Point { return Point(command + ":after") }

// Profile says how the runtime misbehaves. The zero Profile is a faithful runtime.
type Profile struct {
	// Steps are taken at their points, in order.
	Steps map[Point][]Step
	// Cgroup makes the runtime put a container into linux.cgroupsPath, in memory, pids, devices and freezer of version 1
	// or in version 2, and remove that at delete. It needs root. Otherwise containers stay in the caller's cgroups.
	Cgroup bool
	// StaysPaused makes a container that was paused when its init died go on being called paused, as runc does with cgroup
	// version 2: it looks at the freezer first. It cannot be deleted without force until it was resumed.
	StaysPaused bool
}

// On is a profile with steps at one point. More can be added with And.
func On(at Point, steps ...Step) Profile { return Profile{}.And(at, steps...) }

// And adds steps at a point; p itself stays as it is.
func (p Profile) And(at Point, steps ...Step) Profile {
	all := make(map[Point][]Step, len(p.Steps)+1)
	for k, v := range p.Steps {
		all[k] = v
	}
	all[at] = append(append([]Step{}, all[at]...), steps...)
	p.Steps = all
	return p
}

// Step is one thing that the runtime does besides. Its fields are for the journey through a file; make one with the
// functions below.
type Step struct {
	Do   string
	Arg  string `json:",omitempty"`
	N    int64  `json:",omitempty"`
	Only string `json:",omitempty"` // container id, "" for all
	Once string `json:",omitempty"` // taken by the first comer only
}

// For restricts a step to one container.
func (s Step) For(container string) Step { s.Only = container; return s }

// First restricts a step to the first call that comes to it. Steps with the same name share the one time.
func (s Step) First(name string) Step { s.Once = name; return s }

// Wait stops until the test has opened a gate, for ever if it never does.
func Wait(gate string) Step { return Step{Do: "wait", Arg: gate} }

// Hang stops for ever and ignores SIGTERM (row 32).
func Hang() Step { return Step{Do: "hang"} }

// Crash ends the runtime by a signal (row 33).
func Crash(signal int) Step { return Step{Do: "crash", N: int64(signal)} }

// Exit ends the runtime with a code, saying nothing. With 0 it claims to have done what it has not (row 38).
func Exit(code int) Step { return Step{Do: "exit", N: int64(code)} }

// Fail ends the runtime as runc does: an error in the JSON log, the same on stderr, status 1 (row 30).
func Fail(message string) Step { return Step{Do: "fail", Arg: message} }

// FailPlain ends it with status 1 and a message on stderr only.
func FailPlain(message string) Step { return Step{Do: "failplain", Arg: message} }

// FloodStderr writes so many bytes to stderr, as far as somebody takes them (row 30).
func FloodStderr(bytes int64) Step { return Step{Do: "flood", N: bytes} }

// FloodLog writes so many bytes to the log file, in lines of JSON.
func FloodLog(bytes int64) Step { return Step{Do: "floodlog", N: bytes} }

// Stdout writes text to stdout; follow it with Exit(0) to have nothing else there (row 34).
func Stdout(text string) Step { return Step{Do: "stdout", Arg: text} }

// PidFile makes the pid file say something else (row 31): text as it is, in which {pid} is the real one, {runtime} the
// runtime's own, {parent} its parent's (the shim's), and {dead} that of a process that has been. Take it at Forked.
func PidFile(text string) Step { return Step{Do: "pidfile", Arg: text} }

// NoPidFile leaves the pid file out. Take it at Forked.
func NoPidFile() Step { return Step{Do: "nopidfile"} }

// Console is what happens instead of sending the terminal's master to the console socket (row 35). Take it at Before
// of create, exec or restore.
func Console(how ConsoleFault) Step { return Step{Do: "console", Arg: string(how)} }

// ConsoleFault is a way to get the console socket wrong.
type ConsoleFault string

// The faults of row 35.
const (
	ConsoleNever   ConsoleFault = "never"   // does not connect
	ConsoleSilent  ConsoleFault = "silent"  // connects, says nothing, and keeps the connection
	ConsoleTwice   ConsoleFault = "twice"   // connects and sends a second time
	ConsoleNoFD    ConsoleFault = "nofd"    // sends a message without a descriptor
	ConsoleTwoFDs  ConsoleFault = "twofds"  // sends the master twice in one message
	ConsoleFile    ConsoleFault = "file"    // sends a regular file
	ConsoleNotATTY ConsoleFault = "notatty" // sends a pipe
)

// Grandchild leaves a process behind that holds the runtime's stdio, in a session of its own (row 36). It lives until
// the test ends.
func Grandchild() Step { return Step{Do: "grandchild"} }

// KillInit kills the container's init with a signal and waits until it is dead (#9103). At Forked or later.
func KillInit(signal int) Step { return Step{Do: "killinit", N: int64(signal)} }

// KillProcess kills the process that this exec has made, and waits until it is dead. At Forked or later.
func KillProcess(signal int) Step { return Step{Do: "killprocess", N: int64(signal)} }

// Forget removes the runtime's own state of the container: from now on it "does not exist" (row 37).
func Forget() Step { return Step{Do: "forget"} }
