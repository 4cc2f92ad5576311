package field

import (
	"os"
	"testing"

	"github.com/larkshim/lark/e2e/daemon"
)

// terminal is the stdio of a process whose terminal is read from out.
func terminal(out *fifo) daemon.Stdio { return daemon.Stdio{Stdout: out.path, Terminal: true} }

// F06: an exec that closes its terminal and goes on is not hung up.
func TestF06ExecClosesItsTerminal(t *testing.T) {
	under(t, func(s *stage) {
		gate, out := s.gate("gate"), s.fifo("out")
		s.run("a", daemon.SpecOpts{Args: []string{"sleep", "100000"}, Mutate: s.shared}, daemon.Stdio{})
		p := daemon.Process("sh", "-c", "echo FIRST; exec </dev/null >/run/job 2>&1; read x </run/gate; echo JOB-DONE; exit 5")
		p.Terminal = true
		s.must(s.Exec(s.ctx, s.id("a"), "x", p, terminal(out)))
		_, err := s.Start(s.ctx, s.id("a"), "x")
		s.must(err)
		if got := out.line(); got != "FIRST\r\n" {
			s.Errorf("%q", got)
		}
		s.until("the job's file", func() bool { _, err := os.Stat(s.dir + "/job"); return err == nil })
		gate()
		s.wait("a", "x", 5)
		if got := out.rest(); got != "" {
			s.Errorf("after the end: %q", got)
		}
		if got := s.content("job"); got != "JOB-DONE\n" {
			s.Errorf("the job wrote %q", got)
		}
		_, err = s.Delete(s.ctx, s.id("a"), "x")
		s.must(err)
		s.end("a")
	})
}

// F06: an init that closes its console and opens it again loses no output.
func TestF06InitOpensItsConsoleAgain(t *testing.T) {
	under(t, func(s *stage) {
		gate, out := s.gate("gate"), s.fifo("out")
		script := `t=$(tty); echo FIRST; exec </dev/null >/dev/null 2>&1; : >/run/closed; read x </run/gate
			exec <$t >$t 2>&1; echo SECOND; exit 3`
		s.run("a", daemon.SpecOpts{Args: []string{"sh", "-c", script}, Terminal: true, Mutate: s.shared}, terminal(out))
		s.until("the console is closed", func() bool { _, err := os.Stat(s.dir + "/closed"); return err == nil })
		gate()
		s.wait("a", "", 3)
		if got := out.rest(); got != "FIRST\r\nSECOND\r\n" {
			s.Errorf("%q", got)
		}
		s.remove("a")
	})
}

// F09: the size that an exec's terminal is given before its start is kept.
func TestF09ResizeBeforeStart(t *testing.T) {
	under(t, func(s *stage) {
		out := s.fifo("out")
		s.sleeper("a")
		p := daemon.Process("stty", "size")
		p.Terminal = true
		s.must(s.Exec(s.ctx, s.id("a"), "x", p, terminal(out)))
		s.must(s.resize("a", "x", 123, 45))
		_, err := s.Start(s.ctx, s.id("a"), "x")
		s.must(err)
		s.wait("a", "x", 0)
		if got := out.rest(); got != "45 123\r\n" {
			s.Errorf("%q", got)
		}
		_, err = s.Delete(s.ctx, s.id("a"), "x")
		s.must(err)
		s.end("a")
	})
}

// F10: terminals work when the directories that XDG_RUNTIME_DIR and TMPDIR name
// are gone.
func TestF10RuntimeDirIsGone(t *testing.T) {
	under(t, func(s *stage) {
		s.sleeper("a")
		for _, dir := range runtimeDirs {
			s.must(os.RemoveAll(dir))
		}
		exec, init := s.fifo("exec"), s.fifo("init")
		p := daemon.Process("echo", "from an exec")
		p.Terminal = true
		s.must(s.Exec(s.ctx, s.id("a"), "x", p, terminal(exec)))
		_, err := s.Start(s.ctx, s.id("a"), "x")
		s.must(err)
		s.wait("a", "x", 0)
		_, err = s.Delete(s.ctx, s.id("a"), "x")
		s.must(err)
		s.run("b", daemon.SpecOpts{Args: []string{"echo", "from init"}, Terminal: true}, terminal(init))
		s.wait("b", "", 0)
		if got := exec.rest() + init.rest(); got != "from an exec\r\nfrom init\r\n" {
			s.Errorf("%q", got)
		}
		s.remove("b")
		s.end("a")
	})
}
