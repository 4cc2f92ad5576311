package field

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/e2e/daemon"
)

// F01: the runtime's binary is gone for a moment. Kill works or fails, and never
// says that a process that lives is not there.
func TestF01KillWithoutRuntime(t *testing.T) {
	under(t, func(s *stage) {
		pid := s.sleeper("a")
		back := s.away(s.runc)
		for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGKILL} {
			err := s.Kill(s.ctx, s.id("a"), "", uint32(sig), false)
			if errdefs.IsNotFound(err) || err != nil && strings.Contains(err.Error(), "already finished") {
				s.Errorf("kill %v: %v", sig, err)
			}
			if sig == unix.SIGKILL && err != nil {
				s.Errorf("a SIGKILL needs no runtime: %v", err)
				back()
				s.end("a")
				return
			}
		}
		s.wait("a", "", 128+uint32(unix.SIGKILL))
		if alive(pid) {
			s.Error("the process lives")
		}
		back()
		s.remove("a")
	})
}

// F01: Delete without the runtime fails and changes nothing; it works when the
// runtime is back, and the id can be used again.
func TestF01DeleteWithoutRuntime(t *testing.T) {
	under(t, func(s *stage) {
		pid := s.sleeper("a")
		back := s.away(s.runc)
		s.must(unix.Kill(pid, unix.SIGKILL))
		s.wait("a", "", 137)
		_, err := s.Delete(s.ctx, s.id("a"), "")
		if err == nil || errdefs.IsNotFound(err) {
			s.Errorf("delete without the runtime: %v", err)
		}
		if err != nil {
			if _, err := s.Status(s.ctx, s.id("a"), ""); err != nil {
				s.Errorf("status after the delete that failed: %v", err)
			}
		}
		back()
		s.remove("a")
		if left, _ := filepath.Glob(s.d.RuncRoot() + "/*/" + s.id("a")); len(left) > 0 {
			s.Errorf("the runtime still has %v", left)
		}
		s.sleeper("a")
		s.end("a")
	})
}

// F01: nothing else that needs the runtime says that the container is not there.
func TestF01OthersWithoutRuntime(t *testing.T) {
	under(t, func(s *stage) {
		s.sleeper("a")
		s.must(s.Exec(s.ctx, s.id("a"), "x", daemon.Process("true"), daemon.Stdio{}))
		back := s.away(s.runc)
		_, err := s.Start(s.ctx, s.id("a"), "x")
		if err == nil || errdefs.IsNotFound(err) {
			s.Errorf("start of an exec: %v", err)
		}
		for what, call := range map[string]func() error{"pause": s.pause("a"), "resume": s.resume("a")} {
			if err := call(); err == nil || errdefs.IsNotFound(err) {
				s.Errorf("%s: %v", what, err)
			}
		}
		back()
		if p, err := s.Status(s.ctx, s.id("a"), ""); err != nil || p.Status.String() != "RUNNING" {
			s.Errorf("status: %v, %v", p, err)
		}
		_, err = s.Delete(s.ctx, s.id("a"), "x")
		s.must(err)
		s.end("a")
	})
}

// F14: an exec in the host's pid namespace whose runtime fails after the fork does
// not run on.
func TestF14HostPIDExecOfARuntimeThatFailsLate(t *testing.T) {
	under(t, func(s *stage) {
		real := s.runc
		s.runc = s.script("late", `case " $* " in *" exec "*) `+real+` "$@"; exit 1;; esac; exec `+real+` "$@"`)
		o := daemon.SpecOpts{Args: []string{"sleep", "100000"}, HostPID: true, Mutate: s.shared}
		s.run("a", o, daemon.Stdio{})
		s.must(s.Exec(s.ctx, s.id("a"), "x", daemon.Process("sh", "-c", "echo $$ >/run/pid; exec sleep 100000"), daemon.Stdio{}))
		if _, err := s.Start(s.ctx, s.id("a"), "x"); err == nil {
			s.Error("the start succeeded")
		}
		if b, err := os.ReadFile(filepath.Join(s.dir, "pid")); err == nil && len(b) > 0 {
			pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
			s.must(err)
			if alive(pid) {
				s.Error("the exec runs")
			}
		}
		group, err := filepath.Glob("/sys/fs/cgroup/*/" + s.d.Tag() + "/" + s.id("a") + "/cgroup.procs")
		s.must(err)
		for _, procs := range group {
			if b, err := os.ReadFile(procs); err == nil && strings.Count(string(b), "\n") > 1 {
				s.Errorf("%s has %q", procs, b)
			}
		}
		_, err = s.Delete(s.ctx, s.id("a"), "x")
		s.must(err)
		s.end("a")
	})
}
