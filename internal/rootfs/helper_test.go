package rootfs

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/heldexec"
)

// guarding is a parent that forks nothing.
type guarding func(fn func() error) error

func (g guarding) Guard(fn func() error) error { return g(fn) }

func (g guarding) StartContext(context.Context, *exec.Cmd) (*children.Process, error) {
	return nil, errors.New("nothing is forked here")
}

// fuse puts a helper program into PATH, and makes a Mounter that starts it.
func fuse(t *testing.T, script string) (m *Mounter, path string) {
	t.Helper()
	owner, err := children.NewOwner(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, owner.Close()) })
	dir := t.TempDir()
	path = filepath.Join(dir, "mount.fuse3")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return New(owner), path
}

// A helper program mounts; one that fails, hangs, or leaves a daemon that holds its output is told of within its bound.
func TestHelper(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		bound  time.Duration
		told   string // "" for success
	}{
		"mounts":  {`mount -t tmpfs tmpfs "$2"; echo done`, time.Minute, ""},
		"daemon":  {`mount -t tmpfs tmpfs "$2"; sleep 3600 & echo $! >"$1"`, time.Minute, ""},
		"refuses": {`echo "no such file system: $1" >&2; exit 3`, time.Minute, "exit status 3: no such file system"},
		"hangs":   {`echo waiting; sleep 3600`, 100 * time.Millisecond, "deadline exceeded: waiting"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := fuse(t, c.script)
			m.helperTime = c.bound
			b := bundleDir(t)
			source := filepath.Join(t.TempDir(), "source")
			_, err := m.Mount(b, []*types.Mount{{Type: "fuse3.lark", Source: source}})
			if c.told == "" {
				must(t, err)
				if n := len(mountsBelow(t, b)); n != 1 {
					t.Errorf("%d mounts", n)
				}
				must(t, m.Unmount(b))
			} else if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "\n", ": "), c.told) {
				t.Errorf("%v; want %q", err, c.told)
			}
			if pid, err := os.ReadFile(source); err == nil {
				must(t, exec.Command("kill", "-9", strings.TrimSpace(string(pid))).Run())
			}
		})
	}
}

// A mount whose helper's execve is held ends at its bound, and others go on meanwhile.
func TestF11HeldMountHelper(t *testing.T) {
	m, path := fuse(t, "exit 1")
	m.helperTime = 200 * time.Millisecond
	g, err := heldexec.Open(path)
	must(t, err)
	defer g.Close()
	stop, err := heldexec.Watchdog(5 * time.Minute)
	must(t, err)
	defer stop()
	g.Hold(1)
	result := make(chan error, 1)
	b := bundleDir(t)
	go func() {
		_, err := m.Mount(b, []*types.Mount{{Type: "fuse3.lark", Source: "x"}})
		result <- err
	}()
	e := <-g.Held()
	if err := <-result; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v; want DeadlineExceeded", err)
	}
	e.Release()
}
