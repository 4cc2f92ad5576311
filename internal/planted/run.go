package planted

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

const (
	// patience is the longest that a test may take, beside slowdown times what it
	// takes without the fault. A test that exceeds it has not failed: the fault
	// must be declared to hang.
	patience = time.Minute

	// hangs is patience for a fault that is declared to hang.
	hangs = 5 * time.Second

	slowdown = 10

	// whole is the longest that all tests may take without a fault.
	whole = 10 * time.Minute

	// failed is the exit status of a test binary with a failed test.
	failed = 1

	// tail is how much of a test's output an error quotes.
	tail = 4096
)

func (f Fault) key() string { return f.Package + " " + f.Test }

// top is the test without the names of subtests.
func (f Fault) top() string { name, _, _ := strings.Cut(f.Test, "/"); return name }

// pattern is the expression for -test.run that names just this test.
func pattern(test string) string {
	parts := strings.Split(test, "/")
	for i, s := range parts {
		parts[i] = "^" + regexp.QuoteMeta(s) + "$"
	}
	return strings.Join(parts, "/")
}

// build makes the test binary of each package that holds a named test.
func (p *plot) build(replace map[string]string) error {
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	overlay := filepath.Join(p.work, "overlay.json")
	if err := os.WriteFile(overlay, data, 0o600); err != nil {
		return err
	}
	for _, f := range p.faults {
		if p.binaries[f.Package] != "" {
			continue
		}
		if err := readAll(filepath.Join(p.dir, f.Package)); err != nil {
			return err
		}
		binary := filepath.Join(p.work, fmt.Sprintf("%d.test", len(p.binaries)))
		target := "."
		if f.Package != "" {
			target = f.Package
		}
		argv := []string{"go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, target}
		out, status, err := p.run(context.Background(), p.dir, "CGO_ENABLED=0", argv)
		if err != nil || status != 0 {
			return fmt.Errorf("the planted faults do not build: exit status %d, %w\n%s", status, err, out)
		}
		p.binaries[f.Package] = binary
	}
	return nil
}

// readAll reads the Go files of a directory, so that go test knows that the
// verdict depends on them, and does not repeat an old one.
func readAll(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	for _, f := range files {
		_, err2 := os.ReadFile(f)
		err = errors.Join(err, err2)
	}
	return err
}

// sound runs all named tests without a fault. Each must be there and pass.
func (p *plot) sound(ctx context.Context) error {
	tops := map[string][]string{}
	for _, f := range p.faults {
		if top := f.top(); !slices.Contains(tops[f.Package], top) {
			tops[f.Package] = append(tops[f.Package], top)
		}
	}
	for pkg, names := range tops {
		out, status, err := p.test(ctx, pkg, "", "^("+strings.Join(names, "|")+")$", whole)
		if err != nil || status != 0 {
			return fmt.Errorf("without a fault: exit status %d, %w\n%s", status, err, last(out))
		}
		for _, f := range p.faults {
			if f.Package != pkg {
				continue
			}
			took, err := passed(out, f.Test)
			if err != nil {
				return fmt.Errorf("fault %s: without it: %w\n%s", f.Name, err, last(out))
			}
			p.took[f.key()] = took
		}
	}
	return nil
}

// passed returns how long a test took that passed.
func passed(out []byte, test string) (time.Duration, error) {
	m := regexp.MustCompile(`(?m)^\s*--- PASS: ` + regexp.QuoteMeta(test) + ` \(([0-9.]+s)\)`).FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("%s did not run and pass", test)
	}
	return time.ParseDuration(string(m[1]))
}

// try switches the fault on; nil if its test notices.
func (p *plot) try(ctx context.Context, f Fault) error {
	limit := p.patience
	if f.Hangs {
		limit = p.hangs
	}
	limit += slowdown * p.took[f.key()]
	out, status, err := p.test(ctx, f.Package, f.Name, pattern(f.Test), limit)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", f.Test, err)
	case status == 0:
		return fmt.Errorf("not noticed by %s", f.Test)
	case bytes.Contains(out, []byte("panic: test timed out after ")):
		if f.Hangs {
			return nil
		}
		return fmt.Errorf("%s does not end\n%s", f.Test, last(out))
	case status == failed && bytes.Contains(out, []byte("--- FAIL: "+f.top())), f.Crashes:
		return nil
	}
	return fmt.Errorf("%s does not fail, but ends with exit status %d\n%s", f.Test, status, last(out))
}

// test runs a test binary in the directory of its package.
func (p *plot) test(ctx context.Context, pkg, fault, run string, limit time.Duration) (out []byte, status int, err error) {
	argv := []string{p.binaries[pkg], "-test.v", "-test.run", run, "-test.timeout", limit.String()}
	if pkg == "" {
		argv = append(argv, p.args...)
	}
	return p.run(ctx, filepath.Join(p.dir, pkg), variable+"="+fault, argv)
}

// keepStatus runs its arguments and leaves their exit status in the file $0.
const keepStatus = `"$@"; echo $? >"$0"`

// run runs a program and returns what it wrote and its exit status. That is read
// from a file: the process that Check runs in may own its children, and reap
// those that it does not know.
func (p *plot) run(ctx context.Context, dir, env string, argv []string) (out []byte, status int, err error) {
	kept := filepath.Join(p.work, fmt.Sprintf("status-%d", p.runs.Add(1)))
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", keepStatus, kept}, argv...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	// What a test leaves behind goes with it, and does not keep its pipe open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = hangs
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	// The number is the group's for as long as the process is not reaped.
	if err := errno.Retry(func() error {
		return unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	}); err == nil {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}
	if err := cmd.Wait(); err != nil && !errors.Is(err, unix.ECHILD) {
		return b.Bytes(), 0, err
	}
	text, err := os.ReadFile(kept)
	if err != nil {
		return b.Bytes(), 0, err
	}
	status, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return b.Bytes(), status, err
}

func last(out []byte) []byte {
	if len(out) > tail {
		return out[len(out)-tail:]
	}
	return out
}
