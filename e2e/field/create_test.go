package field

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/e2e/daemon"
)

// F04: the client of a create has gone, and containerd has cleared away, before the
// runtime has made the container: what it makes then is undone.
func TestF04CreateOfAClientThatHasGone(t *testing.T) {
	under(t, func(s *stage) {
		real, gate := s.runc, s.gate("gate")
		s.runc = s.script("slow", `case " $* " in *" create "*) : >`+s.dir+`/creating; read x <`+s.dir+`/gate; : >`+s.dir+`/made;; esac; exec `+real+` "$@"`)
		ctx, cancel := context.WithCancel(s.ctx)
		answered := make(chan error)
		rootfs, err := s.d.Rootfs()
		s.must(err)
		spec := s.d.Spec(s.id("a"), daemon.SpecOpts{Args: []string{"sleep", "100000"}})
		s.must(s.CreateContainer(s.ctx, s.id("a"), s.d.Runc(s.rt, s.runc), spec))
		go func() {
			_, err := s.CreateTask(ctx, s.id("a"), daemon.BindRootfs(rootfs), daemon.Stdio{})
			answered <- err
		}()
		s.until("the runtime was called", func() bool { _, err := os.Stat(filepath.Join(s.dir, "creating")); return err == nil })
		cancel()
		if err := <-answered; err == nil {
			s.Error("the create succeeded")
		}
		gate()
		s.until("the task is not there", func() bool {
			_, err := s.Status(s.ctx, s.id("a"), "")
			return errdefs.IsNotFound(err)
		})
		s.must(s.DeleteContainer(s.ctx, s.id("a")))
		// That nothing is left is looked at after every test.
	})
}
