package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/e2e/suite"
)

func pidIn(t *testing.T, info string) int {
	t.Helper()
	var parsed struct{ Pid int }
	if err := json.Unmarshal([]byte(info), &parsed); err != nil || parsed.Pid == 0 {
		t.Fatalf("no pid in %s: %v", info, err)
	}
	return parsed.Pid
}

// shim is the one shim of a pod: the parent of pause and of every container's init. It must be the one under test.
func (p *pod) shim(t *testing.T, containers ...string) int {
	t.Helper()
	shim, err := suite.Parent(p.pid(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range containers {
		if parent, err := suite.Parent(pidOf(t, id)); err != nil || parent != shim {
			t.Errorf("the shim of container %s is %d, the pod's is %d, %v", id, parent, shim, err)
		}
	}
	if ours, err := suite.IsSubject(shim); err != nil || !ours {
		t.Fatalf("the pod's shim is not the one under test, %v", err)
	}
	return shim
}

// TestPodOfThree: three containers of a pod have one shim, which goes with the pod and leaves nothing.
func TestPodOfThree(t *testing.T) {
	eachHandler(t, func(t *testing.T, handler string) {
		p := newPod(t, handler, api.NamespaceMode_CONTAINER)
		var containers []string
		for _, name := range []string{"a", "b", "c"} {
			containers = append(containers, p.run(t, name, "echo "+name+"; sleep inf & wait"))
		}
		shim := p.shim(t, containers...)
		shims, err := suite.Shims()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(shims, []int{shim}) {
			t.Errorf("shims %v at work, want %d alone", shims, shim)
		}
		// The end of one container is not the others' business.
		must(t, node.runtime.StopContainer, &api.StopContainerRequest{ContainerId: containers[0]})
		must(t, node.runtime.RemoveContainer, &api.RemoveContainerRequest{ContainerId: containers[0]})
		if out := exec(t, containers[1], "echo still here"); string(out.Stdout) != "still here\n" {
			t.Errorf("exec in another container: %v", out)
		}
		p.remove(t)
		eventually(t, fmt.Sprintf("shim %d outlives its pod", shim), func() bool {
			shims, err := suite.Shims()
			return err == nil && len(shims) == 0
		})
		nothingLeft(t)
	})
}

// TestExecProbes: ten probes a second over a pod's containers, for some seconds, each with its own status and output.
func TestExecProbes(t *testing.T) {
	const (
		every  = 100 * time.Millisecond
		probes = 60
	)
	eachHandler(t, func(t *testing.T, handler string) {
		p := newPod(t, handler, api.NamespaceMode_CONTAINER)
		var containers []string
		for _, name := range []string{"a", "b", "c"} {
			containers = append(containers, p.run(t, name, "sleep inf & wait"))
		}
		shim := p.shim(t, containers...)
		exec(t, containers[0], "true") // opens what is opened once
		before := descriptors(t, shim)

		ticker := time.NewTicker(every)
		defer ticker.Stop()
		var wait sync.WaitGroup
		for i := range probes {
			<-ticker.C
			wait.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), callLimit)
				defer cancel()
				answer, err := node.runtime.ExecSync(ctx, &api.ExecSyncRequest{ContainerId: containers[i%3], Timeout: 30,
					Cmd: []string{"sh", "-c", fmt.Sprintf("echo out %d; echo err %d >&2; exit %d", i, i, i%2)}})
				if err != nil {
					t.Errorf("probe %d: %v", i, err)
					return
				}
				if string(answer.Stdout) != fmt.Sprintf("out %d\n", i) || string(answer.Stderr) != fmt.Sprintf("err %d\n", i) || int(answer.ExitCode) != i%2 {
					t.Errorf("probe %d: %v", i, answer)
				}
			})
		}
		wait.Wait()
		eventually(t, "the shim holds more descriptors after the probes than before", func() bool {
			return len(descriptors(t, shim)) <= len(before)
		})
		for _, child := range children(t, shim) {
			if strings.Contains(child, "Z (zombie)") {
				t.Errorf("the shim has not reaped %s", child)
			}
		}
	})
}

// TestExecTimeout: a probe that takes too long is killed and answered, and disturbs nobody.
func TestExecTimeout(t *testing.T) {
	eachHandler(t, func(t *testing.T, handler string) {
		p := newPod(t, handler, api.NamespaceMode_CONTAINER)
		id := p.run(t, "a", "sleep inf & wait")
		ctx, cancel := context.WithTimeout(t.Context(), callLimit)
		defer cancel()
		_, err := node.runtime.ExecSync(ctx, &api.ExecSyncRequest{ContainerId: id, Cmd: []string{"sleep", "4321"}, Timeout: 1})
		if grpcstatus.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a probe over its time: %v", err)
		}
		if out := exec(t, id, "ps | grep -c '[s]leep 4321'"); string(out.Stdout) != "0\n" {
			t.Errorf("it runs on: %v", out)
		}
	})
}

func TestStop(t *testing.T) {
	eachHandler(t, func(t *testing.T, handler string) {
		p := newPod(t, handler, api.NamespaceMode_CONTAINER)
		t.Run("handler", func(t *testing.T) {
			id := p.run(t, "polite", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done")
			eventually(t, "it does not start", func() bool { return len(p.log(t, "polite")) > 0 })
			must(t, node.runtime.StopContainer, &api.StopContainerRequest{ContainerId: id, Timeout: 30})
			if s := status(t, id); s.State != api.ContainerState_CONTAINER_EXITED || s.ExitCode != 5 || s.Reason != "Error" {
				t.Errorf("after stop: %v", s)
			}
			if got := p.log(t, "polite"); !slices.Equal(got, []string{"stdout: ready", "stdout: bye"}) {
				t.Errorf("log %q", got)
			}
		})
		t.Run("grace period", func(t *testing.T) {
			id := p.run(t, "stubborn", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
			eventually(t, "it does not start", func() bool { return len(p.log(t, "stubborn")) > 0 })
			began := time.Now()
			must(t, node.runtime.StopContainer, &api.StopContainerRequest{ContainerId: id, Timeout: 2})
			if took := time.Since(began); took < 2*time.Second || took > callLimit {
				t.Errorf("stopped after %v, the grace period is 2 s", took)
			}
			if s := status(t, id); s.ExitCode != 137 {
				t.Errorf("after stop: %v", s)
			}
		})
	})
}

// TestOOMKilled: the reason is never lost, although the kernel's word of it and the exit race (W15, invariant 17).
func TestOOMKilled(t *testing.T) {
	const rounds = 5
	eachHandler(t, func(t *testing.T, handler string) {
		p := newPod(t, handler, api.NamespaceMode_CONTAINER)
		for i := range rounds {
			id := p.run(t, fmt.Sprintf("hog-%d", i), "tail /dev/zero", memory(16<<20))
			if s := exited(t, id); s.Reason != "OOMKilled" || s.ExitCode != 137 {
				t.Errorf("round %d: reason %s, status %d", i, s.Reason, s.ExitCode)
			}
			must(t, node.runtime.RemoveContainer, &api.RemoveContainerRequest{ContainerId: id})
		}
		// One that ends by itself under the same limit is not OOMKilled.
		id := p.run(t, "modest", "exit 3", memory(16<<20))
		if s := exited(t, id); s.Reason != "Error" || s.ExitCode != 3 {
			t.Errorf("reason %s, status %d", s.Reason, s.ExitCode)
		}
	})
}

// TestRestart: containerd goes and comes back while containers run; what happened meanwhile is known after.
func TestRestart(t *testing.T) {
	ways := map[string]func() error{"SIGTERM": func() error { return node.containerd.Terminate() }, "SIGKILL": func() error { return node.containerd.Kill() }}
	eachHandler(t, func(t *testing.T, handler string) {
		for way, end := range ways {
			t.Run(way, func(t *testing.T) {
				p := newPod(t, handler, api.NamespaceMode_CONTAINER)
				trigger := t.TempDir() // seen in the container: tells it to exit while containerd is away
				lasting := p.run(t, "lasting", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
				ending := p.run(t, "ending", "while ! [ -e /trigger/now ]; do sleep 0.1; done; exit 21", func(c *api.ContainerConfig) {
					c.Mounts = []*api.Mount{{ContainerPath: "/trigger", HostPath: trigger}}
				})
				shim, pid, endingPid := p.shim(t, lasting, ending), pidOf(t, lasting), pidOf(t, ending)

				if err := end(); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(trigger, "now"), nil, 0o644); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the container does not end", func() bool { return syscall.Kill(endingPid, 0) != nil })
				if err := errors.Join(node.containerd.Launch(t.Context()), ready(t.Context())); err != nil {
					t.Fatal(err)
				}

				if s := exited(t, ending); s.ExitCode != 21 {
					t.Errorf("it exited with 21 while containerd was away; now %v", s)
				}
				if s := status(t, lasting); s.State != api.ContainerState_CONTAINER_RUNNING || pidOf(t, lasting) != pid {
					t.Errorf("after the restart: %v", s)
				}
				if now := p.shim(t, lasting); now != shim {
					t.Errorf("shim %d after %d", now, shim)
				}
				if out := exec(t, lasting, "exit 8"); out.ExitCode != 8 {
					t.Errorf("exec after the restart: %v", out)
				}
				lines := len(p.log(t, "lasting"))
				eventually(t, "no output arrives after the restart", func() bool { return len(p.log(t, "lasting")) > lines })
				must(t, node.runtime.StopContainer, &api.StopContainerRequest{ContainerId: lasting, Timeout: 1})
				if s := status(t, lasting); s.ExitCode != 137 {
					t.Errorf("after stop: %v", s)
				}
			})
		}
	})
}

// TestSharedPID: in a pod whose containers share one pid namespace, the end of a container's init ends its other
// processes too, though the kernel does not do it there, and touches no other container's.
func TestSharedPID(t *testing.T) {
	for name, mode := range map[string]api.NamespaceMode{"pod": api.NamespaceMode_POD, "node": api.NamespaceMode_NODE} {
		t.Run(name, func(t *testing.T) {
			eachHandler(t, func(t *testing.T, handler string) {
				p := newPod(t, handler, mode)
				other := p.run(t, "other", "sleep 7771 & wait")
				leader := p.run(t, "leader", "sleep 7772 & setsid sleep 7773 & echo ready; wait")
				eventually(t, "it does not start", func() bool { return len(p.log(t, "leader")) > 0 })
				count := func(what string) string {
					return strings.TrimSpace(string(exec(t, other, "ps | grep -c ' "+what+"$'").Stdout))
				}
				eventually(t, "its processes do not run", func() bool { return count("sleep 7772") == "1" && count("sleep 7773") == "1" })
				if err := syscall.Kill(pidOf(t, leader), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				if s := exited(t, leader); s.ExitCode != 137 {
					t.Errorf("after SIGKILL: %v", s)
				}
				if a, b := count("sleep 7772"), count("sleep 7773"); a != "0" || b != "0" {
					t.Errorf("processes left behind by their init: %s and %s", a, b)
				}
				if c := count("sleep 7771"); c != "1" {
					t.Errorf("%s processes of the other container, want 1", c)
				}
			})
		})
	}
}

func TestLogs(t *testing.T) {
	const lines = 5000
	eachHandler(t, func(t *testing.T, handler string) {
		p := newPod(t, handler, api.NamespaceMode_CONTAINER)
		id := p.run(t, "chatty", fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo $i; i=$((i+1)); done; printf unterminated", lines))
		exited(t, id)
		got := p.log(t, "chatty")
		if len(got) != lines+1 || got[lines] != "stdout: unterminated" {
			t.Fatalf("%d lines, the last %q", len(got), got[len(got)-1])
		}
		for i, line := range got[:lines] {
			if line != fmt.Sprintf("stdout: %d", i) {
				t.Fatalf("line %d is %q", i, line)
			}
		}
		terminal := p.run(t, "terminal", "tty", func(c *api.ContainerConfig) { c.Tty = true })
		exited(t, terminal)
		if got := p.log(t, "terminal"); !slices.Equal(got, []string{"stdout: /dev/pts/0\r"}) && !slices.Equal(got, []string{"stdout: /dev/pts/0"}) {
			t.Errorf("with a terminal: %q", got)
		}
	})
}

func TestStatsAndUpdate(t *testing.T) {
	eachHandler(t, func(t *testing.T, handler string) {
		p := newPod(t, handler, api.NamespaceMode_CONTAINER)
		id := p.run(t, "a", "sleep inf & wait", memory(64<<20))
		stats := must(t, node.runtime.ContainerStats, &api.ContainerStatsRequest{ContainerId: id}).Stats
		if stats.Memory.WorkingSetBytes.Value == 0 || stats.Cpu.UsageCoreNanoSeconds.Value == 0 {
			t.Errorf("stats %v", stats)
		}
		must(t, node.runtime.UpdateContainerResources, &api.UpdateContainerResourcesRequest{ContainerId: id,
			Linux: &api.LinuxContainerResources{MemoryLimitInBytes: 96 << 20, MemorySwapLimitInBytes: 96 << 20}})
		cgroup := must(t, node.runtime.ContainerStatus, &api.ContainerStatusRequest{ContainerId: id}).Status.Resources.Linux
		if cgroup.MemoryLimitInBytes != 96<<20 {
			t.Errorf("limit %d after the update", cgroup.MemoryLimitInBytes)
		}
	})
}

// TestEvents: the kubelet hears of each step of a container once, in order.
func TestEvents(t *testing.T) {
	eachHandler(t, func(t *testing.T, handler string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := node.runtime.GetContainerEvents(ctx, &api.GetEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		p := newPod(t, handler, api.NamespaceMode_CONTAINER)
		id := p.run(t, "a", "exit 4")
		exited(t, id)
		must(t, node.runtime.RemoveContainer, &api.RemoveContainerRequest{ContainerId: id})
		timeout := time.AfterFunc(callLimit, cancel)
		defer timeout.Stop()
		var got []api.ContainerEventType
		for !slices.Contains(got, api.ContainerEventType_CONTAINER_DELETED_EVENT) {
			event, err := stream.Recv()
			if err != nil {
				t.Fatalf("after %v: %v", got, err)
			}
			if event.ContainerId == id {
				got = append(got, event.ContainerEventType)
			}
		}
		want := []api.ContainerEventType{api.ContainerEventType_CONTAINER_CREATED_EVENT, api.ContainerEventType_CONTAINER_STARTED_EVENT,
			api.ContainerEventType_CONTAINER_STOPPED_EVENT, api.ContainerEventType_CONTAINER_DELETED_EVENT}
		if !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
	})
}

// TestStartFails: a container whose program is not there fails to start, says why, and its pod works on.
func TestStartFails(t *testing.T) {
	eachHandler(t, func(t *testing.T, handler string) {
		p := newPod(t, handler, api.NamespaceMode_CONTAINER)
		id := p.create(t, "broken", "", func(c *api.ContainerConfig) { c.Command = []string{"/no/such/program"} })
		ctx, cancel := context.WithTimeout(t.Context(), callLimit)
		defer cancel()
		_, err := node.runtime.StartContainer(ctx, &api.StartContainerRequest{ContainerId: id})
		if err == nil || !strings.Contains(err.Error(), "no such file or directory") {
			t.Errorf("start: %v", err)
		}
		if s := status(t, id); s.State != api.ContainerState_CONTAINER_EXITED || s.Reason != "StartError" || s.ExitCode != 128 {
			t.Errorf("after the failed start: %v", s)
		}
		if out := exec(t, p.run(t, "next", "sleep inf & wait"), "echo well"); string(out.Stdout) != "well\n" {
			t.Errorf("the next container: %v", out)
		}
	})
}

// nothingLeft: no process, mount or cgroup of a pod is left.
func nothingLeft(t *testing.T) {
	t.Helper()
	eventually(t, "mounts or cgroups of the pod are left behind", func() bool {
		left := node.containerd.Mounts()
		for _, pattern := range []string{"/sys/fs/cgroup/pods/*/*/cgroup.procs", "/sys/fs/cgroup/*/pods/*/*/cgroup.procs"} {
			found, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, found...)
		}
		return len(left) == 0
	})
}

func descriptors(t *testing.T, pid int) []string {
	t.Helper()
	open, err := daemon.FDs(pid)
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// children are a process's children, with their states.
func children(t *testing.T, parent int) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range all {
		content, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(content), fmt.Sprintf("\nPPid:\t%d\n", parent)) {
			found = append(found, strings.Join(strings.Split(string(content), "\n")[:3], " "))
		}
	}
	return found
}
