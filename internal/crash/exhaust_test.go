package crash

// Rows 46 to 48: no byte, no descriptor and no pid is free. What ends a container must
// work all the same.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
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

// end ends the container by the task API.
func (s *stage) end() {
	s.t.Helper()
	s.killAndWait()
	d, err := s.shim.Delete(s.t.Context(), &taskapi.DeleteRequest{ID: s.id})
	if err != nil || d.ExitStatus != 137 {
		s.t.Errorf("delete: %v, %v\n%s", d, err, s.bundle.Log())
	}
}

func (s *stage) killAndWait() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := s.shim.Kill(ctx, &taskapi.KillRequest{ID: s.id, Signal: 9}); err != nil {
		s.t.Errorf("kill: %v", err)
	}
	w, err := s.shim.Wait(ctx, &taskapi.WaitRequest{ID: s.id})
	if err != nil || w.ExitStatus != 137 {
		s.t.Fatalf("wait: %v, %v\n%s", w, err, s.bundle.Log())
	}
}

// smallDisk mounts a file system on which the stage is, and returns what fills it to the
// last byte and the last inode.
func smallDisk(t *testing.T) (dir string, fill func()) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,nr_inodes=300,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, func() {
		t.Helper()
		full := func(err error) bool { return errors.Is(err, unix.ENOSPC) }
		f, err := os.Create(filepath.Join(dir, "fill"))
		if err != nil {
			t.Fatal(err)
		}
		for size := 1 << 16; size > 0; size /= 2 {
			for err = nil; err == nil; {
				_, err = f.Write(make([]byte, size))
			}
			if !full(err) {
				t.Fatal(err)
			}
		}
		f.Close()
		for i := 0; ; i++ {
			err := os.Symlink("x", filepath.Join(dir, fmt.Sprintf("inode-%d", i)))
			if full(err) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRow46ZeroBytesFree: Kill, Wait, Delete and `delete` need no byte and no inode.
func TestRow46ZeroBytesFree(t *testing.T) {
	t.Run("task API", func(t *testing.T) {
		dir, fill := smallDisk(t)
		s := newStageAt(t, dir, built.plain, built.runc, nil)
		s.running()
		fill()
		s.end()
		s.shim.Leave(t.Context())
		s.nothingLeft("after Delete")
	})
	t.Run("delete", func(t *testing.T) {
		dir, fill := smallDisk(t)
		s := newStageAt(t, dir, built.plain, built.runc, nil)
		s.running()
		fill()
		s.killShim()
		for i := range 2 {
			if r, err := s.delete(); err != nil || r.ExitStatus != 137 {
				t.Errorf("delete %d: %v, %v", i, r, err)
			}
			s.nothingLeft("after delete")
		}
	})
	t.Run("create", func(t *testing.T) {
		dir, fill := smallDisk(t)
		s := newStageAt(t, dir, built.plain, built.runc, nil)
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		fill()
		r, err := s.createRequest()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.shim.Create(t.Context(), r); !errdefs.IsResourceExhausted(err) && !errdefs.IsUnknown(err) {
			t.Errorf("create: %v", err)
		}
		s.shim.Leave(t.Context())
		s.nothingLeft("after the failed create")
	})
}

// TestRow47NoDescriptorFree: an exec is told so and changes nothing; Kill, Wait and
// Delete work, out of the reserve, which was taken when descriptors became few.
func TestRow47NoDescriptorFree(t *testing.T) {
	s := newStage(t, built.plain, built.runc, nil)
	s.running()
	ctx := t.Context()
	s.takeReserve()
	restore := s.descriptors(0)
	if err := s.shim.Exec(ctx, &taskapi.ExecProcessRequest{ID: s.id, ExecID: "e", Spec: execSpec("true")}); err != nil {
		t.Errorf("exec: %v", err)
	}
	if _, err := s.shim.Task.Start(ctx, &taskapi.StartRequest{ID: s.id, ExecID: "e"}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("start of an exec: %v", err)
	}
	if st, err := s.shim.State(ctx, &taskapi.StateRequest{ID: s.id}); err != nil || st.Status != apitypes.Status_RUNNING {
		t.Errorf("state: %v, %v", st, err)
	}
	s.end()
	restore()
	s.shim.Leave(ctx)
	s.nothingLeft("after Delete")
}

// TestRow48NoPidFree: Kill and Wait need no fork. Delete does; it says so, changes
// nothing and succeeds when there is a pid again. The shim, which can make no thread
// either, survives a load of calls.
func TestRow48NoPidFree(t *testing.T) {
	s := newStage(t, built.plain, built.runc, nil)
	s.running()
	restore := s.pids(0)
	ctx := t.Context()
	if err := s.shim.Exec(ctx, &taskapi.ExecProcessRequest{ID: s.id, ExecID: "e", Spec: execSpec("true")}); err != nil {
		t.Errorf("exec: %v", err)
	}
	if _, err := s.shim.Task.Start(ctx, &taskapi.StartRequest{ID: s.id, ExecID: "e"}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("start of an exec: %v", err)
	}
	s.load()
	s.killAndWait()
	s.load()
	for range 2 {
		if _, err := s.shim.Delete(ctx, &taskapi.DeleteRequest{ID: s.id}); !errdefs.IsResourceExhausted(err) {
			t.Errorf("delete: %v", err)
		}
		if st, err := s.shim.State(ctx, &taskapi.StateRequest{ID: s.id}); err != nil || st.Status != apitypes.Status_STOPPED || st.ExitStatus != 137 {
			t.Errorf("state: %v, %v", st, err)
		}
	}
	restore()
	if d, err := s.shim.Delete(ctx, &taskapi.DeleteRequest{ID: s.id}); err != nil || d.ExitStatus != 137 {
		t.Errorf("delete: %v, %v", d, err)
	}
	s.shim.Leave(ctx)
	s.nothingLeft("after Delete")
}

// load makes many calls at once, of the kinds that read files, wait, and fork.
func (s *stage) load() {
	s.t.Helper()
	const clients = 64
	done := make(chan error, clients)
	for i := range clients {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			var err error
			for range 8 {
				switch i % 4 {
				case 0:
					_, err = s.shim.State(ctx, &taskapi.StateRequest{ID: s.id})
				case 1:
					_, err = s.shim.Pids(ctx, &taskapi.PidsRequest{ID: s.id})
				case 2:
					_, err = s.shim.Stats(ctx, &taskapi.StatsRequest{ID: s.id})
				case 3: // forks, and cannot
					_ = s.shim.Update(ctx, &taskapi.UpdateTaskRequest{ID: s.id, Resources: execSpec("true")})
				}
			}
			done <- err
		}()
	}
	for range clients {
		if err := <-done; err != nil && !errdefs.IsNotFound(err) {
			s.t.Errorf("under load: %v", err)
		}
	}
	select {
	case <-s.shim.Gone():
		s.t.Fatalf("the shim is dead:\n%s", s.bundle.Log())
	default:
	}
}
