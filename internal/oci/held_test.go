package oci

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/heldexec"
)

// heldBench is a runtime that ends at once with status 0, and a gate in front of
// its program.
func heldBench(t *testing.T, deadlines Deadlines) (*Runtime, *heldexec.Gate) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "runtime")
	// What it says is that it has run.
	if err := os.WriteFile(binary, []byte("#!/bin/sh\necho ran >>ran\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{
		Binary: binary, Dir: dir, Owner: ownerOf(t),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Deadlines: deadlines,
	})
	if err != nil {
		t.Fatal(err)
	}
	g, err := heldexec.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	stop, err := heldexec.Watchdog(5 * time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return r, g
}

// withdrawn is an error of a call that has not run, and whose process is gone.
func withdrawn(t *testing.T, r *Runtime, e *heldexec.Execution, err error) {
	t.Helper()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v; want DeadlineExceeded", err)
	}
	if err := unix.Kill(e.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the process of the call: %v", err)
	}
	e.Release()
	if _, err := os.Stat(filepath.Join(r.dir, "ran")); !os.IsNotExist(err) {
		t.Errorf("the runtime has run: %v", err)
	}
}

// A call whose execve is held ends at its deadline like any other, and does not run
// afterwards. Meanwhile other calls go on.
func TestF11HeldCallEndsAtItsDeadline(t *testing.T) {
	deadlines := DefaultDeadlines()
	deadlines.Pause = 200 * time.Millisecond
	r, g := heldBench(t, deadlines)
	g.Hold(1)
	paused := make(chan error, 1)
	go func() { paused <- r.Pause(t.Context(), "x") }()
	e := <-g.Held()
	withdrawn(t, r, e, <-paused)
	if err := r.Pause(t.Context(), "x"); err != nil {
		t.Error("released:", err)
	}
}

// A SIGKILL of init does not wait for the whole deadline, other signals do: they
// have no other way.
func TestF11HeldKillIsWithdrawn(t *testing.T) {
	deadlines := DefaultDeadlines()
	deadlines.Kill = 0
	deadlines.KillLaunch = 50 * time.Millisecond
	r, g := heldBench(t, deadlines)
	g.Hold(2)
	killed := make(chan error, 1)
	go func() { killed <- r.Kill(t.Context(), "x", unix.SIGTERM, false) }()
	term := <-g.Held()
	killed9 := make(chan error, 1)
	go func() { killed9 <- r.Kill(t.Context(), "x", unix.SIGKILL, false) }()
	kill := <-g.Held()
	err := <-killed9
	if !strings.Contains(fmt.Sprint(err), "was not executed") {
		t.Error(err)
	}
	withdrawn(t, r, kill, err)
	select {
	case err := <-killed:
		t.Error("the SIGTERM did not wait:", err)
	default:
	}
	term.Release()
	if err := <-killed; err != nil {
		t.Error(err)
	}
}
