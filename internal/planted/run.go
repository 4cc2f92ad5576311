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
		cmd := exec.Command("go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, target)
		cmd.Dir = p.dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("the planted faults do not build: %w\n%s", err, out)
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
		out, err := p.test(ctx, pkg, "", "^("+strings.Join(names, "|")+")$", whole)
		if err != nil {
			return fmt.Errorf("without a fault: %w\n%s", err, last(out))
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
	out, err := p.test(ctx, f.Package, f.Name, pattern(f.Test), limit)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return fmt.Errorf("not noticed by %s", f.Test)
	case bytes.Contains(out, []byte("panic: test timed out after ")):
		if f.Hangs {
			return nil
		}
		return fmt.Errorf("%s does not end\n%s", f.Test, last(out))
	case !errors.As(err, &exit):
		return fmt.Errorf("%s: %w", f.Test, err)
	case exit.ExitCode() == 1 && bytes.Contains(out, []byte("--- FAIL: "+f.top())), f.Crashes:
		return nil
	}
	return fmt.Errorf("%s does not fail, but ends with %w\n%s", f.Test, err, last(out))
}

// test runs a test binary in the directory of its package.
func (p *plot) test(ctx context.Context, pkg, fault, run string, limit time.Duration) ([]byte, error) {
	args := []string{"-test.v", "-test.run", run, "-test.timeout", limit.String()}
	if pkg == "" {
		args = append(args, p.args...)
	}
	cmd := exec.CommandContext(ctx, p.binaries[pkg], args...)
	cmd.Dir = filepath.Join(p.dir, pkg)
	cmd.Env = append(os.Environ(), variable+"="+fault)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// What a test leaves behind goes with it, and does not keep its pipe open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = hangs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// The number is the group's for as long as the process is not reaped.
	_ = errno.Retry(func() error {
		return unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	})
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	err := cmd.Wait()
	return out.Bytes(), err
}

func last(out []byte) []byte {
	if len(out) > tail {
		return out[len(out)-tail:]
	}
	return out
}
