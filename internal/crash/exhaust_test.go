package crash

import (
	"context"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"
)

// running brings the container to running.
func (s *stage) running() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
	r, err := s.createRequest()
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if _, err := s.shim.Create(ctx, r); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.shim.Task.Start(ctx, &taskapi.StartRequest{ID: s.id}); err != nil {
		s.t.Fatal(err)
	}
}

// killShim kills the serving process and waits for its end.
func (s *stage) killShim() {
	s.t.Helper()
	if err := unix.Kill(s.shim.Pid, unix.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	<-s.shim.Gone()
}
