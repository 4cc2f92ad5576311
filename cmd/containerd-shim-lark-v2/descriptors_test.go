package main

import (
	"fmt"
	"os"
	"sync"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/shimclient"
)

func (s *stage) descriptors() int {
	s.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Pid))
	s.must("descriptors", err)
	return len(entries)
}

// F29: the shim of a pod of two containers has no more descriptors at rest than
// upstream's.
func TestF29DescriptorsAtRest(t *testing.T) {
	const upstream = 28
	s := newStage(t)
	s.run(nil) // pause, which has no stdio
	second, err := s.home.NewBundle(s.bundle.ID+"-b", &specs.Spec{Version: "1.0.2",
		Process: &specs.Process{Args: []string{"sleep", "1000"}, Env: []string{"PATH=/bin:/usr/bin"}, Cwd: "/"},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{}}})
	s.must("bundle", err)
	first := s.bundle
	s.bundle = second
	stdout, err := shimclient.NewOutput(second, "out")
	s.must("fifo", err)
	defer stdout.File.Close()
	stderr, err := shimclient.NewOutput(second, "err")
	s.must("fifo", err)
	defer stderr.File.Close()
	s.run(func(r *task.CreateTaskRequest) { r.Stdout, r.Stderr = stdout.Path, stderr.Path })
	s.bundle = first // whose log is the shim's
	s.awaitLog("memory was given back")
	n := s.descriptors()
	t.Logf("%d descriptors at rest", n)
	if n > upstream {
		t.Errorf("%d descriptors at rest, upstream has %d", n, upstream)
	}
	s.finish()
	s.bundle = second
	s.finish()
}

// F29: of 24 execs at once none is refused with a limit of 256 descriptors.
func TestF29ManyExecsWithFewDescriptors(t *testing.T) {
	const execs, limit = 24, 256
	s := newStage(t)
	s.run(nil)
	few := &unix.Rlimit{Cur: limit, Max: limit}
	s.must("prlimit", unix.Prlimit(s.Pid, unix.RLIMIT_NOFILE, few, nil))
	spec, err := shimclient.ProcessSpec(&specs.Process{Args: []string{"sleep", "1000"}, Env: []string{"PATH=/bin:/usr/bin"}, Cwd: "/"})
	s.must("spec", err)
	var all sync.WaitGroup
	for i := range execs {
		var paths []string
		for _, name := range []string{"out", "err"} {
			out, err := shimclient.NewOutput(s.bundle, fmt.Sprintf("%s-%d", name, i))
			s.must("fifo", err)
			defer out.File.Close()
			paths = append(paths, out.Path)
		}
		id := fmt.Sprintf("e%d", i)
		all.Go(func() {
			if err := s.Exec(t.Context(), &task.ExecProcessRequest{ID: s.bundle.ID, ExecID: id, Spec: spec, Stdout: paths[0], Stderr: paths[1]}); err != nil {
				t.Errorf("exec %s: %v", id, err)
				return
			}
			if _, err := s.Task.Start(t.Context(), &task.StartRequest{ID: s.bundle.ID, ExecID: id}); err != nil {
				t.Errorf("start of %s: %v", id, err)
			}
		})
	}
	all.Wait()
	t.Logf("%d descriptors with %d execs", s.descriptors(), execs)
	s.finish()
}
