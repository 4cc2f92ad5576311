package compat

// Scenarios: what happens in the life of a container where all goes well.

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

var lifeScenarios = []scenario{
	{name: "a life", play: life},
	{name: "exit codes", play: exitCodes},
	{name: "signals", play: signals},
	{name: "pause and resume", play: pauseAndResume},
	{name: "killed while paused", play: killedWhilePaused},
	{name: "update", play: update},
	{name: "out of memory", play: outOfMemory},
	{name: "host pid namespace", play: hostPIDNamespace},
	{name: "a pod", play: pod},
	{name: "mounts", play: mounts},
	{name: "read-only root", play: readOnlyRoot},
	{name: "user namespace", play: userNamespace},
	{name: "shutdown", play: shutdown},
}

func life(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.connect("connect before create")
	b.state("state before create", "")
	b.doCreate("create")
	b.state("state created", "")
	b.pids("pids created")
	b.doStart("start", "")
	b.state("state running", "")
	b.connect("connect running")
	b.exec("exec", "e1", "sleep", "1000")
	b.state("state of added exec", "e1")
	b.doStart("start exec", "e1")
	b.state("state of running exec", "e1")
	b.pids("pids with exec")
	b.kill("kill exec", "e1", 9, false)
	b.wait("wait exec", "e1")
	b.await(order.Exited, "c1", "e1")
	b.state("state of exited exec", "e1")
	b.kill("kill exited exec", "e1", 9, false)
	b.delete("delete exec", "e1")
	b.state("state of deleted exec", "e1")
	b.ok("resize without terminal", b.shim.ResizePty(b.Context(), &taskapi.ResizePtyRequest{ID: b.id, Width: 80, Height: 24}))
	b.ok("closeio without stdin", b.shim.CloseIO(b.Context(), &taskapi.CloseIORequest{ID: b.id, Stdin: true}))
	b.kill("kill", "", 9, false)
	b.wait("wait", "")
	b.state("state stopped", "")
	b.connect("connect stopped")
	b.bundleFiles("bundle when stopped")
	b.delete("delete", "")
	b.state("state deleted", "")
	b.connect("connect deleted")
	b.wait("wait deleted", "")
}

func (b *box) pids(name string) {
	b.Helper()
	r, err := b.shim.Pids(b.Context(), &taskapi.PidsRequest{ID: b.id})
	if err != nil {
		b.answer(name, nil, err)
		return
	}
	var lines []string
	for _, p := range r.Processes {
		detail := "no details"
		if p.Info != nil {
			var d options.ProcessDetails
			if err := p.Info.UnmarshalTo(&d); err != nil {
				b.Fatal(err)
			}
			detail = p.Info.TypeUrl + " " + d.ExecID
		}
		lines = append(lines, b.names[float64(p.Pid)]+" "+detail)
	}
	slices.Sort(lines)
	b.note(name, "%s", strings.Join(lines, ", "))
}

// bundleFiles notes what lies in the bundle, with modes.
func (b *box) bundleFiles(name string) {
	b.Helper()
	entries, err := os.ReadDir(b.bundle.Path)
	if err != nil {
		b.Fatal(err)
	}
	var lines []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			b.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %v", e.Name(), info.Mode()))
	}
	b.note(name, "%s", strings.Join(lines, "\n"))
}

func exitCodes(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sh", "-c", "sleep 1000 & exit 7")
	b.up()
	b.wait("wait", "")
	b.state("state", "")
	b.delete("delete", "")
	c := a.container("c2", nil, "sleep", "1000")
	c.up()
	for _, args := range [][]string{{"true"}, {"sh", "-c", "exit 255"}, {"sh", "-c", "kill -TERM $$"}} {
		id := "e" + fmt.Sprint(len(a.order))
		c.exec("exec "+id, id, args...)
		c.doStart("start "+id, id)
		c.wait("wait "+id, id)
		a.await(order.Exited, "c2", id)
		c.delete("delete "+id, id)
	}
	c.end()
}

func signals(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sh", "-c", "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done")
	out := b.output("out")
	b.create.Stdout, b.create.Stderr = out.path(), out.path()
	b.up()
	out.until("ready") // before that an init ignores the signal
	b.kill("kill with a harmless signal", "", 28, false)
	b.kill("kill with a caught signal", "", 10, false)
	b.wait("wait", "")
	b.kill("kill of a stopped container", "", 9, false)
	b.kill("kill all of a stopped container", "", 9, true)
	b.delete("delete", "")
	b.kill("kill of a deleted container", "", 9, false)
	c := a.container("c2", nil, "sleep", "1000")
	c.up()
	c.kill("kill all", "", 9, true)
	c.wait("wait c2", "")
	c.delete("delete c2", "")
}

func pauseAndResume(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.exec("exec", "e1", "sleep", "1000")
	b.doStart("start exec", "e1")
	b.ok("pause", b.shim.Pause(b.Context(), &taskapi.PauseRequest{ID: b.id}))
	b.state("state paused", "")
	b.state("state of exec when paused", "e1")
	b.pids("pids paused")
	b.ok("resume", b.shim.Resume(b.Context(), &taskapi.ResumeRequest{ID: b.id}))
	b.state("state resumed", "")
	b.kill("kill exec", "e1", 9, false)
	b.wait("wait exec", "e1")
	b.await(order.Exited, "c1", "e1")
	b.end()
}

func killedWhilePaused(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.ok("pause", b.shim.Pause(b.Context(), &taskapi.PauseRequest{ID: b.id}))
	b.end()
}

func resources(r specs.LinuxResources) *anypb.Any {
	data, err := json.Marshal(&r)
	if err != nil {
		panic(err)
	}
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", Value: data}
}

func update(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.doCreate("create")
	limit := func(n int64) *anypb.Any {
		return resources(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n}})
	}
	b.ok("update created", b.shim.Update(b.Context(), &taskapi.UpdateTaskRequest{ID: b.id, Resources: limit(64 << 20)}))
	b.stats("stats created")
	b.doStart("start", "")
	b.ok("update running", b.shim.Update(b.Context(), &taskapi.UpdateTaskRequest{ID: b.id, Resources: limit(128 << 20)}))
	b.stats("stats running")
	b.ok("update with annotations", b.shim.Update(b.Context(), &taskapi.UpdateTaskRequest{ID: b.id, Resources: limit(96 << 20), Annotations: map[string]string{"a": "b"}}))
	b.ok("pause", b.shim.Pause(b.Context(), &taskapi.PauseRequest{ID: b.id}))
	b.ok("update paused", b.shim.Update(b.Context(), &taskapi.UpdateTaskRequest{ID: b.id, Resources: limit(80 << 20)}))
	b.ok("resume", b.shim.Resume(b.Context(), &taskapi.ResumeRequest{ID: b.id}))
	b.kill("kill", "", 9, false)
	b.wait("wait", "")
	b.stats("stats stopped")
	b.delete("delete", "")
}

// stats notes which metrics are there, and the limit in them.
func (b *box) stats(name string) {
	b.Helper()
	r, err := b.shim.Stats(b.Context(), &taskapi.StatsRequest{ID: b.id})
	if err != nil {
		b.answer(name, nil, err)
		return
	}
	b.note(name, "%s %s", r.Stats.TypeUrl, metrics(b.act, r.Stats))
}

// outOfMemory: init reads /dev/zero as one line, and is killed for it.
func outOfMemory(a *act, _ *fakeruntime.Control) {
	limit := int64(16 << 20)
	b := a.container("c1", func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	}, "sh", "-c", "tail /dev/zero; exit 1")
	b.up()
	b.wait("wait", "")
	b.await(order.OOM, "c1", "")
	b.await(order.Exited, "c1", "")
	b.delete("delete", "")
}

func hostPIDNamespace(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	}, "sleep", "1000")
	b.up()
	b.exec("exec", "e1", "sleep", "1000")
	b.doStart("start exec", "e1")
	b.kill("kill", "", 9, false)
	b.wait("wait exec", "e1")
	b.wait("wait", "")
	b.await(order.Exited, "c1", "")
	b.delete("delete exec", "e1")
	b.delete("delete", "")
}

// pod: two containers whose annotations name one group have one shim.
func pod(a *act, _ *fakeruntime.Control) {
	in := func(s *specs.Spec) { s.Annotations = map[string]string{"io.kubernetes.cri.sandbox-id": "c1"} }
	b := a.container("c1", in, "sleep", "1000")
	b.up()
	c := a.container("c2", in, "sleep", "1000")
	a.note("second start says", "%s", a.secondStart(c.bundle))
	c.up()
	c.connect("connect c2")
	b.end()
	b.ok("shutdown with c2 running", b.shim.Shutdown(b.Context(), &taskapi.ShutdownRequest{ID: b.id}))
	c.state("state c2", "")
	c.end()
}

// mounts: the root filesystem is the request's.
func mounts(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", func(s *specs.Spec) { s.Root.Path = "rootfs" }, "sh", "-c", "test -w / && exit 5; exit 6")
	if err := os.Remove(filepath.Join(b.bundle.Path, "rootfs")); err != nil {
		a.Fatal(err)
	}
	b.create.Rootfs = []*types.Mount{{Type: "bind", Source: rootfs, Options: []string{"rbind", "ro"}}}
	b.up()
	info, err := os.Stat(filepath.Join(b.bundle.Path, "rootfs"))
	if err != nil {
		a.Fatal(err)
	}
	b.note("rootfs is a directory", "%v", info.IsDir())
	b.wait("wait", "")
	b.delete("delete", "")
	b.note("mounts left", "%d", mountsBelow(a, b.bundle.Path))
	c := a.container("c2", func(s *specs.Spec) { s.Root.Path = "rootfs" }, "true")
	c.create.Rootfs = []*types.Mount{{Type: "bind", Source: "/no/such/directory", Options: []string{"rbind"}}}
	c.doCreate("create with a mount that fails")
	c.note("mounts left of it", "%d", mountsBelow(a, c.bundle.Path))
	upper, work := filepath.Join(a.cfg.Home.Dir, "upper"), filepath.Join(a.cfg.Home.Dir, "wk")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			a.Fatal(err)
		}
	}
	d := a.container("c3", func(s *specs.Spec) { s.Root.Path = "rootfs" }, "sh", "-c", "echo hello >/made; exit 4")
	d.create.Rootfs = []*types.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + rootfs, "upperdir=" + upper, "workdir=" + work}}}
	if err := d.doCreate("create on overlay"); err == nil {
		d.doStart("start on overlay", "")
		d.wait("wait on overlay", "")
		d.delete("delete on overlay", "")
		data, err := os.ReadFile(filepath.Join(upper, "made"))
		d.note("written to the upper directory", "%q %v", data, err)
	}
}

func mountsBelow(a *act, dir string) int {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		a.Fatal(err)
	}
	return strings.Count(string(text), " "+dir)
}

// readOnlyRoot: no mounts come with the request, and the root cannot be written.
func readOnlyRoot(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", func(s *specs.Spec) { s.Root.Readonly = true }, "sh", "-c", "echo x >/made && exit 5; exit 6")
	b.up()
	b.wait("wait", "")
	b.delete("delete", "")
}

// userNamespace: a container whose root is nobody outside, and owns its stdio.
func userNamespace(a *act, _ *fakeruntime.Control) {
	const outside = 100000
	a.further(&options.Options{IoUid: outside, IoGid: outside})
	b := a.container("c1", func(s *specs.Spec) {
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: outside, Size: 65536}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		// What a user namespace may not mount.
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "sysfs" || m.Type == "cgroup" || m.Type == "mqueue" })
	}, "sh", "-c", "id -u; cat /proc/self/uid_map; stat -L -c %u /proc/self/fd/1; echo again >/dev/stdout")
	// As the daemon does it: the remapped root may pass through.
	for _, d := range []string{a.cfg.Home.Dir, filepath.Dir(b.bundle.Path), b.bundle.Path} {
		if err := os.Chmod(d, 0o711); err != nil {
			a.Fatal(err)
		}
	}
	out := b.output("out")
	b.create.Stdout, b.create.Stderr = out.path(), out.path()
	if err := b.doCreate("create"); err != nil {
		return
	}
	out.attached()
	b.doStart("start", "")
	b.wait("wait", "")
	b.note("output", "%q", out.all())
	b.delete("delete", "")
}

// shutdown: refused silently with a task, and otherwise the end of process and socket.
func shutdown(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "true")
	b.doCreate("create")
	b.ok("shutdown with a task", b.shim.Shutdown(b.Context(), &taskapi.ShutdownRequest{ID: b.id}))
	b.state("state", "")
	b.doStart("start", "")
	b.wait("wait", "")
	b.delete("delete", "")
	socket := b.shim.Answer.Socket()
	info, err := os.Stat(socket)
	if err != nil {
		a.Fatal(err)
	}
	b.note("the socket's mode", "%v", info.Mode())
	b.shim.Leave(b.Context())
	_, err = os.Stat(socket)
	b.note("the socket after the end", "%v", os.IsNotExist(err))
	r, err := b.shim.RunDelete(b.Context(), b.bundle)
	b.answer("delete command after the end", r, err)
}
