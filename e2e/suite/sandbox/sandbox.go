// Package sandbox runs a test program in a small world of its own: own mounts, processes, network, IPC and cgroups. What
// runs there finds the machine's files, but an empty /run, /tmp and /var/lib, no network but loopback, and, where containers
// put their cgroups, a subtree of its own. When the program ends the kernel ends every process of that world and drops its
// mounts; the cgroups and the directory are removed after. So a test may start daemons at their fixed paths beside others
// of the machine, and nothing it forgets outlives it.
//
// sandbox.go is what callers use and runs outside, inside.go is what happens within, cgroup.go makes and removes the cgroups.
package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// stageVariable says, in the environment of a re-executed program, which stage of entering a sandbox it is to run.
	stageVariable = "LARK_E2E_SANDBOX_STAGE"
	// planVariable carries the plan to those stages, as JSON.
	planVariable = "LARK_E2E_SANDBOX_PLAN"
	// insideVariable is set for whatever runs in a sandbox.
	insideVariable = "LARK_E2E_SANDBOX"

	stageInit  = "init"  // pid 1: enters the cgroups, starts the next stage, reaps
	stageSetup = "setup" // makes the mounts, then becomes the command
)

// Config says what a sandbox holds.
type Config struct {
	// Hosts are names that resolve to 127.0.0.1, besides localhost.
	Hosts []string
	// Keep are directories that stay visible where they are although they may lie below /run, /tmp or /var/lib.
	Keep []string
	// Path is searched for programs before the machine's own PATH.
	Path []string
	// Env is added to the environment.
	Env []string
	// Dir is the working directory inside; empty: the caller's.
	Dir string
	// Stdout and Stderr receive the output; nil: the caller's own.
	Stdout, Stderr io.Writer
}

// plan is what the stages need to know.
type plan struct {
	Private string // directory of this sandbox: lib, tmp and hosts are in it
	Keep    []string
	Cgroups []string // to be entered, as seen from outside
	Argv    []string
	Dir     string
}

// Inside tells whether this process runs in a sandbox.
func Inside() bool { return os.Getenv(insideVariable) != "" }

// Init must be called before anything else in the main or TestMain of a program that uses Run or Main: in a process that
// is a stage of entering a sandbox it does not return.
func Init() {
	switch os.Getenv(stageVariable) {
	case stageInit:
		os.Exit(runInit())
	case stageSetup:
		fmt.Fprintln(os.Stderr, "sandbox:", runSetup())
		os.Exit(setupFailed)
	}
}

// Runner is a *testing.M, or one that does something before and after the tests.
type Runner interface{ Run() int }

// Main runs the tests of m inside a sandbox, by running this very test binary again in there with the same arguments, and
// returns the status for os.Exit.
func Main(m Runner, config Config) int {
	Init()
	if Inside() {
		return m.Run()
	}
	err := Run(context.Background(), config, os.Args...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "sandbox:", err)
	return 1
}

// Run runs a command in a new sandbox and removes the sandbox. An error of the command is an *exec.ExitError. When ctx
// ends, everything inside is killed.
func Run(ctx context.Context, config Config, argv ...string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("a sandbox needs root")
	}
	// Pdeathsig goes by the thread that forks, so that thread must live as long as this call.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	private, err := os.MkdirTemp("/var/tmp", "lark-sandbox-") // on a disk: overlayfs is picky
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(private)) }()
	cgroups, err := makeCgroups()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeCgroups(cgroups)) }()

	p, err := makePlan(private, cgroups, config, argv)
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(p)
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "/proc/self/exe")
	command.Env = append(environment(config), stageVariable+"="+stageInit, planVariable+"="+string(encoded))
	command.Stdout, command.Stderr = or(config.Stdout, os.Stdout), or(config.Stderr, os.Stderr)
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := command.Run(); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

func makePlan(private string, cgroups []string, config Config, argv []string) (*plan, error) {
	for _, dir := range []string{"lib", "tmp"} {
		if err := os.Mkdir(filepath.Join(private, dir), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(filepath.Join(private, "tmp"), 0o1777); err != nil {
		return nil, err
	}
	line := "127.0.0.1 localhost " + strings.Join(config.Hosts, " ") + "\n::1 localhost\n"
	if err := os.WriteFile(filepath.Join(private, "hosts"), []byte(line), 0o644); err != nil {
		return nil, err
	}
	dir := config.Dir
	if dir == "" {
		var err error
		if dir, err = os.Getwd(); err != nil {
			return nil, err
		}
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, err
	}
	if program, err = filepath.Abs(program); err != nil {
		return nil, err
	}
	return &plan{
		Private: private,
		Keep:    append([]string{dir, filepath.Dir(program)}, config.Keep...),
		Cgroups: cgroups,
		Argv:    append([]string{program}, argv[1:]...),
		Dir:     dir,
	}, nil
}

// environment is the caller's, with the sandbox's PATH and variables, and without what would lead out of the sandbox.
func environment(config Config) []string {
	var env []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		switch name {
		case "TMPDIR", "PATH", "XDG_RUNTIME_DIR", "NOTIFY_SOCKET":
		default:
			env = append(env, variable)
		}
	}
	path := append(append([]string{}, config.Path...), os.Getenv("PATH"))
	env = append(env, "PATH="+strings.Join(path, ":"), insideVariable+"=1")
	return append(env, config.Env...)
}

func or(w, otherwise io.Writer) io.Writer {
	if w == nil {
		return otherwise
	}
	return w
}
