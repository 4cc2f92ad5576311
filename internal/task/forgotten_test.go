package task

// What must not stay of a process that is deleted, and what must be there before
// an exit is announced.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"

	fake "github.com/larkshim/lark/internal/fakeruntime"
)

// TestF20WaitOfWhatNeverRan: who waits for a process that is deleted before it ran
// gets NotFound, be it deleted by itself or with its container; who waits for one
// whose start failed gets FailedPrecondition, since it is still there.
func TestF20WaitOfWhatNeverRan(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.On(fake.Before(fake.Exec), fake.Fail("no")), "sleep", "1000")
	b.create()
	b.start("")
	for _, id := range []string{"deleted", "forgotten", "failed"} {
		if err := b.addExec(id, "true"); err != nil {
			t.Fatal(err)
		}
	}
	deleted, forgotten, failed := b.beginWait("deleted"), b.beginWait("forgotten"), b.beginWait("failed")
	if _, err := b.Start(t.Context(), &task.StartRequest{ID: b.id, ExecID: "failed"}); err == nil {
		t.Error("the start has not failed")
	}
	if r := ended(t, "wait", failed); !errdefs.IsFailedPrecondition(r.err) {
		t.Errorf("wait for an exec whose start failed: %v", r.err)
	}
	b.mustDelete("deleted")
	if r := ended(t, "wait", deleted); !errdefs.IsNotFound(r.err) {
		t.Errorf("wait for an exec that was deleted before it ran: %v", r.err)
	}
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	b.mustDelete("")
	if r := ended(t, "wait", forgotten); !errdefs.IsNotFound(r.err) {
		t.Errorf("wait for an exec that went with its container: %v", r.err)
	}
}

// TestF20WaitOfARestoreThatNeverRan: the same for an init.
func TestF20WaitOfARestoreThatNeverRan(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.request.Checkpoint = t.TempDir()
	b.create()
	wait := b.beginWait("")
	b.mustDelete("")
	if r := ended(t, "wait", wait); !errdefs.IsNotFound(r.err) {
		t.Errorf("wait: %v", r.err)
	}
}

// TestDeletedExecIsForgotten: nothing is kept of an exec that was deleted, whether
// it has run or not, and its id can be used again for another.
func TestDeletedExecIsForgotten(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	b.start("")
	c, err := s.find(b.id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		never := fmt.Sprintf("never%d", i) // the order of events knows no delete of it
		b.exec("again", "true")
		b.wait("again")
		if err := b.addExec(never, "true"); err != nil {
			t.Fatal(err)
		}
		b.mustDelete("again")
		b.mustDelete(never)
		c.mu.Lock()
		n := len(c.execs)
		c.mu.Unlock()
		if n != 0 {
			t.Fatalf("%d execs are kept", n)
		}
		if _, err := b.Wait(t.Context(), &task.WaitRequest{ID: b.id, ExecID: "again"}); !errdefs.IsNotFound(err) {
			t.Errorf("wait for a deleted exec: %v", err)
		}
	}
}

// TestForgottenExecLosesItsStdio: an exec that is not deleted goes with its
// container, and so does its stdio: no descriptor of it stays open.
func TestForgottenExecLosesItsStdio(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	b.start("")
	dir := t.TempDir()
	in, out := filepath.Join(dir, "stdin"), filepath.Join(dir, "stdout")
	for _, path := range []string{in, out} {
		if err := mkfifo(path); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR|oNonblock, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	before := opened(t, dir)
	_, err := b.Exec(t.Context(), &task.ExecProcessRequest{
		ID: b.id, ExecID: "e", Stdin: in, Stdout: out, Spec: &anypb.Any{Value: []byte(`{"args":["cat"],"cwd":"/"}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.start("e")
	if opened(t, dir) == before {
		t.Fatal("the exec has no stdio")
	}
	if err := b.kill("e", 9); err != nil {
		t.Fatal(err)
	}
	b.wait("e")
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	b.mustDelete("")
	until(t, "stdio of an exec that is gone is open", func() bool { return opened(t, dir) == before })
}

// opened counts the descriptors of this process that are open below a directory.
func opened(t *testing.T, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.HasPrefix(to, dir+"/") {
			n++
		}
	}
	return n
}

// TestExitIsRecordedBeforeItIsAnnounced: containerd may hear of an exit and call the
// delete command at once, which reads it in the bundle. Every announcement asks the
// clock, under the lock, for its time.
func TestExitIsRecordedBeforeItIsAnnounced(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	var there []bool // at each announcement; the container's lock guards it
	s.clock = func() time.Time {
		_, err := os.Stat(filepath.Join(b.bundle, "exit.json"))
		there = append(there, err == nil)
		return time.Now()
	}
	b.create()
	b.start("")
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	b.mustDelete("")
	if len(there) != 4 || there[0] || there[1] || !there[2] {
		t.Errorf("the exit was in the bundle at the announcements of create, start, exit and delete: %v", there)
	}
}
