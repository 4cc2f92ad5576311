package run

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/shimclient"
)

func TestStatusText(t *testing.T) {
	for status, want := range map[uint32]string{0: "0", 3: "3", 128: "128", 137: "137 (SIGKILL)", 143: "143 (SIGTERM)", 255: "255"} {
		if got := statusText(status); got != want {
			t.Errorf("%d: got %q, want %q", status, got, want)
		}
	}
}

func TestRow(t *testing.T) {
	r := newRunner(Options{}, "c", nil)
	r.begin = time.Unix(100, 0)
	e := shimclient.Event{Topic: "/tasks/exit", Task: order.Event{Kind: order.Exited, Exec: "exec-1", Pid: 77, Status: 137, Sent: time.Unix(101, 5e6)}}
	want := "  +1.005s  exit          exec-1          77  137 (SIGKILL)"
	if got := r.line(e, nil); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	e = shimclient.Event{Topic: "/tasks/exec-added", Task: order.Event{Kind: order.ExecAdded, Exec: "exec-1", Sent: time.Unix(100, 0)}}
	if got, want := r.line(e, nil), "  +0.000s  exec-added    exec-1"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestScreen: lines are whole, and those that were held back come when they may.
func TestScreen(t *testing.T) {
	err := newCapture(t)
	s := newScreen(Options{Stdout: err.File, Stderr: err.File})
	s.midline = true // as if half a line stood on a shared terminal
	s.event("one")
	s.held = true
	s.event("two")
	io.WriteString(s.stderr(), "output\n")
	s.release()
	s.release()
	s.note("three")
	want := "\n" + tableHead + "\none\noutput\ntwo\nlark: three\n"
	if got := err.text(t); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestQuietScreen(t *testing.T) {
	err := newCapture(t)
	s := newScreen(Options{Stdout: err.File, Stderr: err.File, Quiet: true})
	s.event("one")
	s.note("two")
	if got := err.text(t); got != "lark: two\n" {
		t.Errorf("got %q", got)
	}
}

// TestMidline: only a terminal that both share can be left in the middle of a line.
func TestMidline(t *testing.T) {
	s := newScreen(Options{Stdout: newCapture(t).File, Stderr: newCapture(t).File})
	io.WriteString(s.stdout(), "half")
	if s.midline {
		t.Error("a file was taken for a terminal")
	}
	shared := &stream{s: s, to: s.out, shared: true}
	io.WriteString(shared, "half")
	if !s.midline {
		t.Error("half a line was not seen")
	}
	io.WriteString(shared, "whole\n")
	if s.midline {
		t.Error("the end of the line was not seen")
	}
}

func TestDefaultArgs(t *testing.T) {
	if a := defaultArgs(Options{Terminal: true, Execs: 1}); len(a) != 1 || a[0] != "sh" {
		t.Error(a)
	}
	if a := defaultArgs(Options{Execs: 1}); len(a) != 2 || a[0] != "sleep" {
		t.Error(a)
	}
	if a := defaultArgs(Options{}); a != nil {
		t.Error(a)
	}
}

func TestOwnShimBesideProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(self), ownShim)
	if err := os.WriteFile(path, []byte("#!/bin/true\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	if got, err := OwnShim(); err != nil || got != path {
		t.Errorf("got %q, %v", got, err)
	}
}
