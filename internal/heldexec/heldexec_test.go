package heldexec

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// program makes a copy of true that only this test executes.
func program(t *testing.T) string {
	t.Helper()
	from, err := os.Open("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(t.TempDir(), "true")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// An execution is held until it is released, the next one is let through, and
// Close releases the rest.
func TestGate(t *testing.T) {
	path := program(t)
	g, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	stop, err := Watchdog(5 * time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	// The shell forks, so that this process does not wait for the execve.
	run := func() (pid int, ended <-chan error) {
		cmd := exec.Command("/bin/sh", "-c", path+"& wait $!")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		return cmd.Process.Pid, done
	}
	g.Hold(2)
	_, first := run()
	held := <-g.Held()
	_, second := run()
	other := <-g.Held()
	_, third := run()
	if err := <-third; err != nil {
		t.Error("beyond the number:", err)
	}
	for _, e := range []*Execution{held, other} {
		if err := unix.Kill(e.Pid, 0); err != nil {
			t.Error("a held process:", err)
		}
	}
	select {
	case <-first:
		t.Error("the first was not held")
	case <-second:
		t.Error("the second was not held")
	default:
	}
	other.Release()
	other.Release()
	if err := <-second; err != nil {
		t.Error(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	if _, open := <-g.Held(); open {
		t.Error("the list of held executions goes on")
	}
}
