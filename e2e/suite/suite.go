// Package suite is what the tests of Docker, CRI and several containerds have in common: which shim they are about, and
// the sandbox they run in.
//
// The shim is named by LARK_E2E_SHIM, and is lark's own in bin/ otherwise. It is installed under two names, as
// containerd-shim-lark-v2 and in the place of containerd-shim-runc-v2, first in PATH.
package suite

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/e2e/registry"
	"github.com/larkshim/lark/e2e/suite/sandbox"
)

const (
	shimVariable = "LARK_E2E_SHIM"
	// binVariable names, inside the sandbox, the directory in which the shim is installed.
	binVariable = "LARK_E2E_SUBJECT_BIN"

	// LarkRuntime and RuncRuntime are the runtimes that lead to the shim under test.
	LarkRuntime = "io.containerd.lark.v2"
	RuncRuntime = "io.containerd.runc.v2"
)

// installed are the names of the shim under test.
var installed = []string{"containerd-shim-lark-v2", "containerd-shim-runc-v2"}

// Needs are what tests run besides the shim. What is missing is installed or built before they begin.
type Needs struct {
	// Programs are of the system's packages, those that build/conformance.sh knows.
	Programs []string
	// Peers are built from the Go module proxy, by build/peers.sh: "containerd-2.4.2".
	Peers []string
}

// Main runs the tests of m in a sandbox that has the shim under test; TestMain passes its result to os.Exit.
func Main(m sandbox.Runner, needs Needs) int {
	sandbox.Init()
	if sandbox.Inside() {
		return m.Run()
	}
	stage, err := prepare(needs)
	if err != nil {
		fmt.Fprintln(os.Stderr, "these tests cannot run:", err)
		return 1
	}
	defer os.RemoveAll(stage)
	return sandbox.Main(m, sandbox.Config{
		Hosts: registry.Hosts,
		Keep:  []string{stage, daemon.Cache()},
		Path:  []string{stage},
		Env:   []string{binVariable + "=" + stage, "LARK_CACHE=" + daemon.Cache()},
	})
}

// prepare installs the shim under test in a directory of its own, which the caller removes.
func prepare(needs Needs) (stage string, err error) {
	if os.Geteuid() != 0 {
		return "", errors.New("they start containers and need root")
	}
	shim := os.Getenv(shimVariable)
	if shim == "" {
		shim = filepath.Join(daemon.Bin(), "containerd-shim-lark-v2")
	}
	if _, err := os.Stat(shim); err != nil {
		return "", fmt.Errorf("the shim under test: %w (`make` builds it, %s names another)", err, shimVariable)
	}
	if err := needs.Provide(); err != nil {
		return "", err
	}
	if stage, err = os.MkdirTemp("", "lark-stage-"); err != nil {
		return "", err
	}
	for _, name := range installed {
		if err := CopyProgram(shim, filepath.Join(stage, name)); err != nil {
			return "", errors.Join(err, os.RemoveAll(stage))
		}
	}
	return stage, nil
}

// Provide installs and builds what is missing.
func (n Needs) Provide() error {
	var missing []string
	for _, program := range n.Programs {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		if err := script("conformance.sh", missing...); err != nil {
			return err
		}
	}
	if len(n.Peers) == 0 {
		return nil
	}
	return script("peers.sh", n.Peers...) // looks by itself what is there
}

// script runs one of build/.
func script(name string, args ...string) error {
	path, err := filepath.Abs(filepath.Join("build", name))
	for err == nil {
		if _, missing := os.Stat(path); missing == nil {
			break
		}
		above := filepath.Join(filepath.Dir(path), "..", "..", "build", name)
		if above == path {
			return fmt.Errorf("no build/%s here or above", name)
		}
		path = above
	}
	if err != nil {
		return err
	}
	command := exec.Command(path, args...)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", path, strings.Join(args, " "), err)
	}
	return nil
}

// Bin is the directory, inside the sandbox, in which the shim under test is installed.
func Bin() string { return os.Getenv(binVariable) }

// IsSubject tells whether a process runs the shim under test.
func IsSubject(pid int) (bool, error) {
	// What runs, not what its path says: the file may have been replaced meanwhile.
	running, err := Digest(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	if err != nil {
		return false, err
	}
	subject, err := Digest(filepath.Join(Bin(), installed[0]))
	return running == subject, err
}

// Parent is the parent of a process: of a container's init, its shim.
func Parent(pid int) (int, error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "PPid:"); ok {
			return strconv.Atoi(strings.TrimSpace(rest))
		}
	}
	return 0, fmt.Errorf("no parent in the status of %d", pid)
}

// Shims are the processes in the sandbox that run the shim under test and serve (`start` and `delete` pass by).
func Shims() ([]int, error) {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || filepath.Dir(exe) != Bin() {
			continue // ended meanwhile, a kernel thread, or something else
		}
		argv, err := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		if err != nil || strings.HasSuffix(string(argv), "\x00start\x00") || strings.HasSuffix(string(argv), "\x00delete\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// CopyProgram copies a program.
func CopyProgram(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// Digest is the SHA-256 of a file, in hexadecimal.
func Digest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
