package task

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/outbox"
	"github.com/larkshim/lark/lifecycle"
)

// What is kept of a process, until when, and under which name.

// What was deleted is in no table: a container that lives for years has thousands
// of execs.
func TestDeletedLeavesTheTables(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	b.start("")
	b.exec("ran", "true")
	b.wait("ran")
	if err := b.addExec("never", "true"); err != nil {
		t.Fatal(err)
	}
	c, err := s.find(b.id)
	if err != nil {
		t.Fatal(err)
	}
	b.mustDelete("ran")
	b.mustDelete("never")
	c.mu.Lock()
	if len(c.execs) != 0 {
		t.Errorf("execs left: %v", c.execs)
	}
	c.mu.Unlock()
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	b.mustDelete("")
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.containers) != 0 {
		t.Errorf("containers left: %v", s.containers)
	}
}

// The root filesystem of a container that could not be made is not left mounted.
func TestFailedCreateLeavesNoMount(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.On(fake.Before(fake.Create), fake.Exit(3)), "true")
	rootfs := filepath.Join(b.bundle, "rootfs")
	if err := os.Mkdir(rootfs, 0o700); err != nil {
		t.Fatal(err)
	}
	b.request.Rootfs = []*types.Mount{{Type: "bind", Source: shared.rootfs, Options: []string{"bind"}}}
	if _, err := b.Create(t.Context(), b.request); err == nil {
		t.Fatal("the create has not failed")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), rootfs) {
		t.Error("the root filesystem is mounted")
		_ = unix.Unmount(rootfs, unix.MNT_DETACH)
	}
}

// Init's exit is in the bundle when the rules are told of it, that is, before it is
// announced: a shim that is killed after the announcement has left it to the
// delete command.
func TestExitIsKeptBeforeItIsAnnounced(t *testing.T) {
	s := newShim(t)
	kept := make(chan error, 1)
	s.observe = func(c *container, ev lifecycle.Event, _ []lifecycle.Effect, _ error) {
		if ev.Kind == lifecycle.Exited && ev.Proc == initProc {
			_, err := c.bundle.ReadInitExit()
			kept <- err
		}
	}
	b, _ := s.scripted(nil, fake.Profile{}, "true")
	b.create()
	b.start("")
	b.wait("")
	if err := <-kept; err != nil {
		t.Errorf("the exit is not in the bundle: %v", err)
	}
	b.mustDelete("")
}

// A process's waiters are released by the same step that announces its exit.
func TestWaitersAreReleasedWithTheAnnouncement(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	b.start("")
	b.exec("x", "true")
	c, err := s.find(b.id)
	if err != nil {
		t.Fatal(err)
	}
	for _, exec := range []string{"x", ""} {
		if exec == "" {
			if err := b.kill("", 9); err != nil {
				t.Fatal(err)
			}
		}
		b.is(order.Exited, exec)
		c.mu.Lock()
		p := c.proc(lifecycle.Proc(exec))
		c.mu.Unlock()
		select {
		case <-p.exited:
		default:
			t.Errorf("%q: the exit is announced, and its waiters wait", exec)
			close(p.exited) // for the clean-up
		}
	}
}

// Invariant 27: a container that is stopped and not deleted has its dead init for a
// list of processes.
func TestPidsOfAStoppedContainer(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.Profile{}, "true")
	pid := b.create()
	b.start("")
	b.wait("")
	r, err := s.Pids(t.Context(), &task.PidsRequest{ID: b.id})
	if err != nil || len(r.Processes) != 1 || r.Processes[0].Pid != pid {
		t.Errorf("processes %v, %v, want init's pid %d", r.GetProcesses(), err, pid)
	}
	b.mustDelete("")
}

// Every announcement has a kind for the outbox, which says whether it may be
// dropped: of init none may but the OOM kill.
func TestKindsOfTheOutbox(t *testing.T) {
	const exec = lifecycle.Proc("x")
	for _, c := range []struct {
		topic lifecycle.Topic
		proc  lifecycle.Proc
		want  outbox.Kind
	}{
		{lifecycle.TopicCreate, initProc, outbox.Create},
		{lifecycle.TopicStart, initProc, outbox.Start},
		{lifecycle.TopicExit, initProc, outbox.Exit},
		{lifecycle.TopicDelete, initProc, outbox.Delete},
		{lifecycle.TopicOOM, initProc, outbox.OOM},
		{lifecycle.TopicPaused, initProc, outbox.Note},
		{lifecycle.TopicResumed, initProc, outbox.Note},
		{lifecycle.TopicExecAdded, exec, outbox.ExecAdded},
		{lifecycle.TopicExecStarted, exec, outbox.ExecStarted},
		{lifecycle.TopicExit, exec, outbox.ExecExit},
	} {
		if got := kindOf(lifecycle.Effect{Kind: lifecycle.Announce, Topic: c.topic, Proc: c.proc}); got != c.want {
			t.Errorf("%v of %q is %v, want %v", c.topic, c.proc, got, c.want)
		}
	}
}
