package field

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/e2e/daemon"
)

// F07: a logger that is dead at once fails the create, by its name, and the start
// of an exec; nothing of either is left.
func TestF07LoggerDeadAtOnce(t *testing.T) {
	under(t, func(s *stage) {
		uri := "binary://" + s.script("dead-logger", "exit 3")
		_, err := s.create("a", daemon.SpecOpts{Args: []string{"true"}}, daemon.Stdio{Stdout: uri, Stderr: uri})
		if err == nil || !strings.Contains(err.Error(), "dead-logger") || errdefs.IsNotFound(err) {
			s.Errorf("create: %v", err)
		}
		if _, err := s.Status(s.ctx, s.id("a"), ""); !errdefs.IsNotFound(err) {
			s.Errorf("the task of a failed create: %v", err)
		}
		s.must(s.DeleteContainer(s.ctx, s.id("a")))
		s.sleeper("b")
		s.must(s.Exec(s.ctx, s.id("b"), "x", daemon.Process("true"), daemon.Stdio{Stdout: uri, Stderr: uri}))
		if _, err := s.Start(s.ctx, s.id("b"), "x"); err == nil || !strings.Contains(err.Error(), "dead-logger") {
			s.Errorf("start: %v", err)
		}
		_, err = s.Delete(s.ctx, s.id("b"), "x")
		s.must(err)
		s.end("b")
	})
}

// F08: logs that are devices, or are named by links.
func TestF08DevicesAndLinks(t *testing.T) {
	under(t, func(s *stage) {
		log, link := filepath.Join(s.dir, "log"), filepath.Join(s.dir, "link")
		s.must(os.Symlink(log, link))
		for i, uri := range []string{"file:///dev/null", "file:///dev/full", "file://" + link, link} {
			name := string(rune('a' + i))
			s.run(name, daemon.SpecOpts{Args: []string{"sh", "-c", "echo out && echo err >&2"}}, daemon.Stdio{Stdout: uri, Stderr: uri})
			s.wait(name, "", 0)
			s.remove(name)
		}
		if got := strings.Count(s.content("log"), "\n"); got != 4 {
			s.Errorf("%d lines in the log, want 4", got)
		}
	})
}
