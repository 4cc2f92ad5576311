package crash

// Row 60, I12: SIGKILL of the shim at each numbered point.

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/shimclient"
)

// tooMany is more points than there are; a loop that comes to it never ends.
const tooMany = 500

// at is the environment that kills a command at its n-th point, and the file that will
// have the point's name.
func (s *stage) at(role string, n int) (env, file string) {
	file = filepath.Join(s.home.Dir, "point")
	return fmt.Sprintf("%s:%d:%s", role, n, file), file
}

func hostPID(s *specs.Spec) {
	var kept []specs.LinuxNamespace
	for _, ns := range s.Linux.Namespaces {
		if ns.Type != specs.PIDNamespace {
			kept = append(kept, ns)
		}
	}
	s.Linux.Namespaces = kept
}

// TestRow60KillTheServer kills the serving process at every point of a container's
// life. After each, `delete` leaves nothing and gives the same answer twice.
func TestRow60KillTheServer(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*specs.Spec)
		step   int
	}{
		"private pid namespace": {nil, 1},
		// What differs is what is left in the cgroup, which is the same at neighbouring points.
		"host's pid namespace": {hostPID, 3},
	} {
		t.Run(name, func(t *testing.T) {
			var names []string
			for n := 1; n < tooMany; n += c.step {
				point := ""
				t.Run(fmt.Sprint(n), func(t *testing.T) { point = killServer(t, n, c.change) })
				if point == "" || t.Failed() {
					break
				}
				names = append(names, point)
			}
			t.Logf("killed at %d points: %s", len(names), strings.Join(names, ", "))
			if len(names) < 40/c.step {
				t.Error("those are too few: the binary has no points")
			}
		})
	}
}

// killServer runs one life and returns the name of the point at which it ended, "" if
// it went through.
func killServer(t *testing.T, n int, change func(*specs.Spec)) string {
	s := newStage(t, built.failing, built.runc, change)
	env, file := s.at("serve", n)
	t.Setenv(failpoint.Env, env)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := s.start()
	if err == nil {
		err = s.life(ctx)
		if ctx.Err() != nil {
			t.Fatal("a call hangs")
		}
	}
	point, readErr := os.ReadFile(file)
	if readErr != nil {
		if err != nil {
			t.Errorf("it was not killed, and yet: %v\n%s", err, s.bundle.Log())
		}
		return ""
	}
	if s.shim == nil { // the client has removed the bundle already
		s.nothingLeft("after a failed start")
		return string(point)
	}
	<-s.shim.Gone()
	s.deleteTwice()
	if t.Failed() {
		t.Logf("killed at %q; the last call said: %v", point, err)
	}
	return string(point)
}

// TestRow60KillDelete kills `delete` itself at every point, of a container whose shim
// was killed while it ran. The next one finishes the work.
func TestRow60KillDelete(t *testing.T) {
	var names []string
	for n := 1; n < tooMany; n++ {
		point := ""
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := newStage(t, built.failing, built.runc, nil)
			s.running()
			s.killShim()
			env, file := s.at("delete", n)
			_, err := s.delete(failpoint.Env + "=" + env)
			b, readErr := os.ReadFile(file)
			if (readErr == nil) != (err != nil) {
				t.Errorf("delete: %v; killed: %v", err, readErr == nil)
			}
			point = string(b)
			s.deleteTwice()
		})
		if point == "" {
			break
		}
		names = append(names, point)
	}
	t.Logf("killed at %d points: %s", len(names), strings.Join(names, ", "))
	if len(names) < 5 {
		t.Error("those are too few: the binary has no points")
	}
}

// TestRow60KillStart kills `start` at every point. Until the server runs `delete` leaves
// nothing; after that the next start finds the server (row 62).
func TestRow60KillStart(t *testing.T) {
	var names []string
	for n := 1; n < tooMany; n++ {
		point := ""
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := newStage(t, built.failing, built.runc, nil)
			s.cfg.Era = shimclient.EraPlain // the same as rawStart
			env, file := s.at("start", n)
			err := s.rawStart(failpoint.Env + "=" + env)
			b, readErr := os.ReadFile(file)
			if (readErr == nil) != (err != nil) {
				t.Fatalf("start: %v; killed: %v", err, readErr == nil)
			}
			point = string(b)
			running := len(s.processes()) > 0
			if point != "" && !running {
				s.deleteTwice()
			}
			if err := s.start(); err != nil {
				t.Fatalf("the next start: %v", err)
			}
			if n := len(s.processes()); n != 1 {
				t.Errorf("%d processes, want one shim: %v", n, s.processes())
			}
			if err := s.life(t.Context()); err != nil {
				t.Error(err)
			}
			s.deleteTwice()
		})
		if point == "" {
			break
		}
		names = append(names, point)
	}
	t.Logf("killed at %d points: %s", len(names), strings.Join(names, ", "))
	if len(names) < 3 {
		t.Error("those are too few: the binary has no points")
	}
}

// rawStart runs `start` as containerd 1.6 does, and does not connect.
func (s *stage) rawStart(env ...string) error {
	address := filepath.Join(s.home.Dir, "containerd.sock")
	cmd := exec.Command(s.cfg.Binary, "-namespace", namespace, "-address", address, "-publish-binary", "/bin/true", "-id", s.id, "start")
	cmd.Dir = s.bundle.Path
	cmd.Env = append(os.Environ(), "TTRPC_ADDRESS="+s.cfg.Sink.Address())
	cmd.Env = append(cmd.Env, env...)
	return cmd.Run()
}

// TestRow60KillAtAnyMoment kills the server between the points, while the runtime
// creates: that dies with it, wherever it is, and cannot clean up either.
func TestRow60KillAtAnyMoment(t *testing.T) {
	const step, steps = 4 * time.Millisecond, 14 // runc creates in some 40 ms
	for _, c := range []struct {
		name   string
		change func(*specs.Spec)
	}{{"private", nil}, {"host", hostPID}} {
		for i := range steps {
			t.Run(fmt.Sprintf("%s %v", c.name, time.Duration(i)*step), func(t *testing.T) {
				s := newStage(t, built.plain, built.runc, c.change)
				if err := s.start(); err != nil {
					t.Fatal(err)
				}
				r, err := s.createRequest()
				if err != nil {
					t.Fatal(err)
				}
				created := make(chan error, 1)
				go func() { _, err := s.shim.Create(context.Background(), r); created <- err }()
				time.Sleep(time.Duration(i) * step)
				s.killShim()
				<-created
				s.deleteTwice()
			})
			if t.Failed() {
				return // each failure waits for what does not come
			}
		}
	}
	t.Logf("killed at %d moments", 2*steps)
}
