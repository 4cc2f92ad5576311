package main

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

// alone has the shims that are started after it look soon.
func alone(t *testing.T, after time.Duration) { t.Setenv("LARK_FORSAKEN_AFTER", after.String()) }

// awaitEnd waits for the end of the process, and of its socket.
func (s *stage) awaitEnd() {
	s.t.Helper()
	fd, err := unix.PidfdOpen(s.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	s.must("pidfd", err)
	defer unix.Close(fd)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds())); n != 1 {
		s.t.Fatalf("the shim is still there (%v)", err)
	}
	if _, err := os.Lstat(s.Answer.Socket()); !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("the socket is left: %v", err)
	}
}

// A shim without a container and without a connection ends by itself, in order.
func TestForsakenShimEnds(t *testing.T) {
	alone(t, time.Second)
	s := newStage(t)
	s.Disconnect()
	s.awaitEnd()
}

// F04: a Create whose client is lost leaves nothing, and no shim either.
func TestF04ShimOfALostCreateEnds(t *testing.T) {
	alone(t, time.Hour)
	s := newStage(t)
	s.ctl.Become(t, fake.On(fake.Before(fake.Create), fake.Wait("go")))
	opts, err := s.cfg.Options()
	s.must("options", err)
	created := make(chan error, 1)
	go func() {
		_, err := s.Create(context.Background(), &task.CreateTaskRequest{ID: s.bundle.ID, Bundle: s.bundle.Path, Options: opts})
		created <- err
	}()
	s.ctl.Reached(t, fake.Before(fake.Create), 1)
	s.must("shutdown", s.Shutdown(t.Context(), &task.ShutdownRequest{ID: s.bundle.ID}))
	s.Disconnect()
	if err := <-created; err == nil {
		t.Error("the client was answered")
	}
	s.awaitLog("a client has left") // the server has seen it
	s.ctl.Open(t, "go")
	s.awaitEnd()
	if pids := s.ctl.Processes(t); len(pids) != 0 {
		t.Errorf("processes %v are left", pids)
	}
	kinds := s.kinds()
	if len(kinds) == 0 || kinds[len(kinds)-1] != order.Deleted {
		t.Errorf("events %v", kinds)
	}
}

// F05: the shim of a dead container whose bundle is gone ends when no client is connected.
func TestF05OrphanedShimEnds(t *testing.T) {
	alone(t, 500*time.Millisecond)
	s := newStage(t)
	s.run(nil)
	s.end("")
	s.must("remove the bundle", os.RemoveAll(s.bundle.Path))
	s.Disconnect()
	s.awaitEnd()
	if pids := s.ctl.Processes(t); len(pids) != 0 {
		t.Errorf("processes %v are left", pids)
	}
}
