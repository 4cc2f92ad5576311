package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Init()
	if play, ok := plays[os.Getenv(playVariable)]; ok {
		os.Exit(play())
	}
	os.Exit(m.Run())
}

// playVariable has this test binary play a part inside a sandbox.
const playVariable = "LARK_SANDBOX_PLAY"

var plays = map[string]func() int{
	"look around":    lookAround,
	"leave a daemon": leaveADaemon,
	"hang":           func() int { os.Stdout.WriteString("hanging\n"); select {} },
}

// inSandbox plays a part in a sandbox and returns what it printed.
func inSandbox(ctx context.Context, play string, out io.Writer) error {
	return Run(ctx, Config{Hosts: []string{"registry.example"}, Env: []string{playVariable + "=" + play}, Stdout: out, Stderr: out}, os.Args[0])
}

func cgroupsLeft(t *testing.T) []string {
	t.Helper()
	mounts, err := cgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	own, err := ownCgroups()
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, mount := range mounts {
		for _, parent := range []string{mount.Path, filepath.Join(mount.Path, own[mount.controllers()])} {
			found, err := filepath.Glob(filepath.Join(parent, cgroupPrefix+strconv.Itoa(os.Getpid())+"-*"))
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, found...)
		}
	}
	return left
}

// nothingLeft: neither cgroups, nor directories, nor mounts.
func nothingLeft(t *testing.T) {
	t.Helper()
	if left := cgroupsLeft(t); len(left) > 0 {
		t.Errorf("cgroups left behind: %v", left)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), "lark-sandbox") {
		t.Errorf("mounts left behind:\n%s", mounts)
	}
}

func TestRun(t *testing.T) {
	var out bytes.Buffer
	err := inSandbox(t.Context(), "look around", &out)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Fatalf("error %v, want status 42:\n%s", err, &out)
	}
	nothingLeft(t)
}

// lookAround ends with 42 if the sandbox is what it promises to be.
func lookAround() int {
	var wrong []string
	check := func(ok bool, what string) {
		if !ok {
			wrong = append(wrong, what)
		}
	}
	check(Inside(), "Inside says no")
	check(os.Getpid() < 20, "its pid namespace is not new: pid "+strconv.Itoa(os.Getpid()))
	for dir, kept := range map[string][]string{"/run": {"lark-sandbox"}, "/var/lib": nil} {
		entries, err := os.ReadDir(dir)
		check(err == nil, dir+" cannot be read")
		for _, entry := range entries {
			check(slices.Contains(kept, entry.Name()), dir+" has "+entry.Name())
		}
	}
	addresses, err := net.LookupHost("registry.example")
	check(err == nil && slices.Equal(addresses, []string{"127.0.0.1"}), "the host has addresses "+strings.Join(addresses, " "))
	interfaces, err := net.Interfaces()
	check(err == nil && len(interfaces) == 1 && interfaces[0].Flags&net.FlagUp != 0, "the network is not loopback alone, and up")
	own, err := ownCgroups()
	check(err == nil, "no cgroups")
	for controllers, path := range own {
		check(path == "/" || path == "/tests", "the cgroup of "+controllers+" is "+path)
	}
	mounts, err := cgroupMounts()
	check(err == nil && len(mounts) > 0, "no cgroup mounts")
	for _, mount := range mounts {
		check(os.Mkdir(filepath.Join(mount.Path, "left"), 0o755) == nil, "no cgroup can be made in "+mount.Path)
	}
	if len(wrong) > 0 {
		os.Stdout.WriteString(strings.Join(wrong, "\n"))
		return 1
	}
	return 42
}

// TestNothingOutlivesIt: a daemon that its starter forgot, in a session and a cgroup of its own, goes with the sandbox.
func TestNothingOutlivesIt(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := inSandbox(t.Context(), "leave a daemon", writer); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	// The daemon holds the pipe open, so its end is the daemon's.
	if err := reader.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(reader); err != nil || string(out) != "left it\n" {
		t.Errorf("output %q, %v", out, err)
	}
	nothingLeft(t)
}

func leaveADaemon() int {
	mounts, err := cgroupMounts()
	if err != nil {
		return 1
	}
	daemon := exec.Command("sleep", "600")
	daemon.Stdout, daemon.Stderr = os.Stdout, os.Stderr
	daemon.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := daemon.Start(); err != nil {
		return 1
	}
	for _, mount := range mounts {
		if mount.Type == "cgroup" && strings.Contains(mount.Options, "cpuset") {
			continue // takes no process before it is configured
		}
		dir := filepath.Join(mount.Path, "daemon")
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(daemon.Process.Pid)), 0o644)); err != nil {
			os.Stdout.WriteString(err.Error())
			return 1
		}
	}
	os.Stdout.WriteString("left it\n")
	return 0
}

// TestCancel: when the context ends, so does everything inside.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := inSandbox(ctx, "hang", writerFunc(func(p []byte) {
		if strings.Contains(string(p), "hanging") {
			cancel()
		}
	}))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	nothingLeft(t)
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestRunRefusesAMissingProgram(t *testing.T) {
	if err := Run(t.Context(), Config{}, "/no/such/program"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	nothingLeft(t)
}
