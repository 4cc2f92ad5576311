package field

import (
	"os"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/e2e/daemon"
)

func (s *stage) resize(name, exec string, width, height uint32) error {
	_, err := s.Tasks.ResizePty(s.In(s.ctx), &tasksapi.ResizePtyRequest{ContainerID: s.id(name), ExecID: exec, Width: width, Height: height})
	return errgrpc.ToNative(err)
}

func (s *stage) pause(name string) func() error {
	return func() error {
		_, err := s.Tasks.Pause(s.In(s.ctx), &tasksapi.PauseTaskRequest{ContainerID: s.id(name)})
		return errgrpc.ToNative(err)
	}
}

func (s *stage) resume(name string) func() error {
	return func() error {
		_, err := s.Tasks.Resume(s.In(s.ctx), &tasksapi.ResumeTaskRequest{ContainerID: s.id(name)})
		return errgrpc.ToNative(err)
	}
}

// gate makes a FIFO that a script waits at by reading a line from it.
func (s *stage) gate(name string) (open func()) {
	s.Helper()
	f := s.fifo(name)
	w, err := os.OpenFile(f.path, os.O_RDWR, 0)
	s.must(err)
	s.Cleanup(func() { w.Close() })
	return func() {
		_, err := w.WriteString("\n")
		s.must(err)
	}
}

// F02: a request that is too large is refused and nothing else: the container
// lives on, also under containerd 1.6, to which a closed connection is a dead shim.
func TestF02ExecSpecOfSixMegabytes(t *testing.T) {
	under(t, func(s *stage) {
		pid := s.sleeper("a")
		p := daemon.Process("true")
		p.Env = append(p.Env, "LARGE="+strings.Repeat("x", 6<<20))
		if err := s.Exec(s.ctx, s.id("a"), "large", p, daemon.Stdio{}); err == nil || errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) {
			s.Errorf("an exec of 6 MB: %v", err)
		}
		s.must(s.Exec(s.ctx, s.id("a"), "x", daemon.Process("sh", "-c", "exit 7"), daemon.Stdio{}))
		_, err := s.Start(s.ctx, s.id("a"), "x")
		s.must(err)
		s.wait("a", "x", 7)
		_, err = s.Delete(s.ctx, s.id("a"), "x")
		s.must(err)
		if !alive(pid) {
			s.Error("the container is dead")
		}
		s.end("a")
	})
}

// F20: a Wait for an exec that is deleted before it ran answers NotFound.
func TestF20WaitForAnExecThatNeverRan(t *testing.T) {
	under(t, func(s *stage) {
		s.sleeper("a")
		s.must(s.Exec(s.ctx, s.id("a"), "x", daemon.Process("true"), daemon.Stdio{}))
		waited := make(chan error)
		go func() {
			_, err := s.Wait(s.ctx, s.id("a"), "x")
			waited <- err
		}()
		_, err := s.Delete(s.ctx, s.id("a"), "x")
		s.must(err)
		if err := <-waited; !errdefs.IsNotFound(err) {
			s.Errorf("wait: %v", err)
		}
		s.end("a")
	})
}

// F30: members of config.json whose names differ in case alone.
func TestF30DoubledMembers(t *testing.T) {
	under(t, func(s *stage) {
		id := s.id("a")
		text := string(toJSON(s.d.Spec(id, daemon.SpecOpts{Args: []string{"sh", "-c", "exit 4"}})))
		text = strings.TrimSuffix(text, "}") + `,"annotations":{"a":"1"},"Annotations":{"b":"2"}}`
		opts, err := anypb.New(s.d.Runc(s.rt, s.runc).Options)
		s.must(err)
		opts.TypeUrl = strings.TrimPrefix(opts.TypeUrl, "type.googleapis.com/")
		s.d.Made(s.Namespace(), id)
		_, err = s.Containers.Create(s.In(s.ctx), &containersapi.CreateContainerRequest{Container: &containersapi.Container{
			ID: id, Runtime: &containersapi.Container_Runtime{Name: s.rt, Options: opts},
			Spec: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: []byte(text)},
		}})
		s.must(err)
		rootfs, err := s.d.Rootfs()
		s.must(err)
		_, err = s.CreateTask(s.ctx, id, daemon.BindRootfs(rootfs), daemon.Stdio{})
		s.must(err)
		_, err = s.Start(s.ctx, id, "")
		s.must(err)
		s.wait("a", "", 4)
		s.remove("a")
	})
}
