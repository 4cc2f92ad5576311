package compat

// Scenarios: what the OCI runtime is told, and what becomes of its answers. The runtime
// is the fake one, which notes its command lines and fails as it is told to.

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

var faithful = &fakeruntime.Profile{}

func on(at fakeruntime.Point, steps ...fakeruntime.Step) *fakeruntime.Profile {
	p := fakeruntime.On(at, steps...)
	return &p
}

var runtimeScenarios = []scenario{
	{name: "command lines", profile: faithful, play: commandLines},
	{name: "command lines with every option", profile: faithful, play: everyOption},
	{name: "checkpoint", profile: faithful, play: checkpoint},
	{name: "checkpoint fails", profile: on(fakeruntime.Before(fakeruntime.Checkpoint), fakeruntime.Fail("criu failed: type NOTIFY errno 0")), play: checkpointFails},
	{name: "restore", profile: &fakeruntime.Profile{Cgroup: true}, play: restore},
	{name: "kill of what is to be restored", profile: faithful, play: killUnrestored},
	{name: "restore fails", profile: faithful, play: restoreFails},
	{name: "create fails", profile: on(fakeruntime.Before(fakeruntime.Create), fakeruntime.Fail("no luck today")), play: createFails},
	{name: "init dies in create", profile: on(fakeruntime.After(fakeruntime.Create), fakeruntime.KillInit(9)), play: diesInCreate},
	{name: "init dies in start", profile: on(fakeruntime.After(fakeruntime.Start), fakeruntime.KillInit(9)), play: diesInStart},
	{name: "start fails", profile: on(fakeruntime.Before(fakeruntime.Start), fakeruntime.Fail("no luck today")), play: startFails},
	{name: "exec fails", profile: on(fakeruntime.Before(fakeruntime.Exec), fakeruntime.Fail("no luck today")), play: execFails},
	{name: "pause fails", profile: on(fakeruntime.Before(fakeruntime.Pause), fakeruntime.Fail("no luck today")), play: pauseFails},
	{name: "kill fails", profile: on(fakeruntime.Before(fakeruntime.Kill), fakeruntime.Fail("container not running")), play: killFails},
	{name: "delete fails", profile: on(fakeruntime.Before(fakeruntime.Delete), fakeruntime.Fail("no luck today").First("once")), play: deleteFails},
	{name: "the runtime forgets", profile: on(fakeruntime.After(fakeruntime.Start), fakeruntime.Forget()), play: runtimeForgets},
}

// spelling takes away what lark spells otherwise on purpose: an exec's pid file has a
// name that no other file of the bundle can have, its log is a file in memory of its own,
// and a flag and its value are two arguments.
func (a *act) spelling(line string) string {
	line = strings.Replace(line, "--resources=-", "--resources -", 1)
	line = strings.Replace(line, "/exec-e1.pid", "/e1.pid", 1)
	if strings.Contains(line, " exec ") {
		line = regexp.MustCompile(`--log \S+`).ReplaceAllString(line, "--log LOG")
	}
	return line
}

// calls notes the runtime's command lines, but for those that only ask, and where it
// is run.
func (a *act) calls(name string, ctl *fakeruntime.Control) {
	a.Helper()
	var lines, dirs []string
	for _, e := range ctl.Journal(a) {
		if e.At == "begin" && e.Command != fakeruntime.State && e.Command != fakeruntime.Ps {
			lines = append(lines, fmt.Sprintf("%s, umask %o", a.spelling(strings.Join(e.Args, " ")), e.Umask))
			dirs = append(dirs, e.Dir)
		}
	}
	a.note(name, "%s", strings.Join(lines, "\n"))
	slices.Sort(dirs)
	a.note(name+" are made in", "%q", slices.Compact(dirs))
}

func commandLines(a *act, ctl *fakeruntime.Control) {
	a.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	a.Setenv("LARK_COMPAT", "handed on")
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.exec("exec", "e1", "sleep", "1000")
	b.doStart("start exec", "e1")
	b.ok("pause", b.shim.Pause(b.Context(), &taskapi.PauseRequest{ID: b.id}))
	b.ok("resume", b.shim.Resume(b.Context(), &taskapi.ResumeRequest{ID: b.id}))
	b.ok("update", b.shim.Update(b.Context(), &taskapi.UpdateTaskRequest{ID: b.id, Resources: resources(specs.LinuxResources{})}))
	b.kill("kill exec", "e1", 9, false)
	b.wait("wait exec", "e1")
	b.kill("kill all", "", 9, true)
	b.wait("wait", "")
	b.delete("delete", "")
	a.calls("calls", ctl)
	var env []string
	for _, e := range ctl.Journal(a) {
		if e.At == "begin" {
			for _, kv := range e.Env {
				name, _, _ := strings.Cut(kv, "=")
				switch name {
				case "NOTIFY_SOCKET", "LARK_COMPAT", "TTRPC_ADDRESS", "NAMESPACE", "XDG_RUNTIME_DIR":
					env = append(env, name)
				}
			}
			break
		}
	}
	slices.Sort(env)
	a.note("environment", "%q", env)
}

func everyOption(a *act, ctl *fakeruntime.Control) {
	a.further(&options.Options{
		NoPivotRoot: true, NoNewKeyring: true, SystemdCgroup: true, Root: filepath.Join(a.cfg.Home.Dir, "another-root"),
		CriuWorkPath: filepath.Join(a.cfg.Home.Dir, "criu"), CriuImagePath: filepath.Join(a.cfg.Home.Dir, "image"),
	})
	b := a.container("c1", func(s *specs.Spec) { s.Linux.CgroupsPath = "system.slice:lark:c1" }, "sleep", "1000")
	b.up()
	b.bundleFiles("bundle")
	data, err := os.ReadFile(filepath.Join(b.bundle.Path, "options.json"))
	if err != nil {
		a.Fatal(err)
	}
	a.note("options.json", "%s", data)
	b.ok("checkpoint", b.shim.Checkpoint(b.Context(), &taskapi.CheckpointTaskRequest{
		ID: b.id, Path: filepath.Join(a.cfg.Home.Dir, "dump"), Options: checkpointOptions(a, &options.CheckpointOptions{
			OpenTcp: true, ExternalUnixSockets: true, Terminal: true, FileLocks: true, EmptyNamespaces: []string{"network"},
			WorkPath: filepath.Join(a.cfg.Home.Dir, "dump-work"), ParentPath: "../parent", CgroupsMode: "soft",
		}),
	}))
	b.end()
	a.calls("calls", ctl)
}

func checkpointOptions(a *act, o *options.CheckpointOptions) *anypb.Any {
	a.Helper()
	value, err := proto.Marshal(o)
	if err != nil {
		a.Fatal(err)
	}
	return &anypb.Any{TypeUrl: "containerd.runc.v1.CheckpointOptions", Value: value}
}

func checkpoint(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	image := filepath.Join(a.cfg.Home.Dir, "image")
	b.ok("checkpoint that leaves it running", b.shim.Checkpoint(b.Context(), &taskapi.CheckpointTaskRequest{ID: b.id, Path: image}))
	b.state("state after it", "")
	b.ok("checkpoint that does not", b.shim.Checkpoint(b.Context(), &taskapi.CheckpointTaskRequest{
		ID: b.id, Path: image, Options: checkpointOptions(a, &options.CheckpointOptions{Exit: true}),
	}))
	b.wait("wait", "")
	b.state("state", "")
	b.delete("delete", "")
	a.calls("calls", ctl)
}

func checkpointFails(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	work := filepath.Join(b.bundle.Path, "work", "criu-work")
	if err := os.Mkdir(work, 0o700); err != nil {
		a.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "dump.log"), []byte("what CRIU said\n"), 0o600); err != nil {
		a.Fatal(err)
	}
	b.ok("checkpoint", b.shim.Checkpoint(b.Context(), &taskapi.CheckpointTaskRequest{ID: b.id, Path: filepath.Join(a.cfg.Home.Dir, "image")}))
	data, err := os.ReadFile(filepath.Join(b.bundle.Path, "criu-dump.log"))
	a.note("criu-dump.log", "%q %v", data, err)
	_, err = os.Stat(work)
	a.note("the work directory is gone", "%v", os.IsNotExist(err))
	b.state("state", "")
	b.end()
}

func restore(a *act, ctl *fakeruntime.Control) {
	image := filepath.Join(a.cfg.Home.Dir, "image")
	first := a.container("c1", nil, "sleep", "1000")
	first.up()
	first.ok("checkpoint", a.shim.Checkpoint(a.Context(), &taskapi.CheckpointTaskRequest{ID: "c1", Path: image}))
	b := a.container("c2", nil, "sleep", "1000")
	b.create.Checkpoint, b.create.ParentCheckpoint = image, filepath.Join(a.cfg.Home.Dir, "parent")
	b.doCreate("create")
	b.state("state created", "")
	b.connect("connect created")
	b.exec("exec when created", "e0", "true")
	b.stats("stats created")
	b.doStart("start", "")
	b.state("state running", "")
	b.stats("stats running")
	b.exec("exec", "e1", "sh", "-c", "exit 4")
	b.doStart("start exec", "e1")
	b.wait("wait exec", "e1")
	b.end()
	first.end()
	a.calls("calls", ctl)
}

func killUnrestored(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.create.Checkpoint = filepath.Join(a.cfg.Home.Dir, "no-image")
	b.doCreate("create")
	b.kill("kill", "", 9, false)
	b.delete("delete", "")
}

func restoreFails(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.create.Checkpoint = filepath.Join(a.cfg.Home.Dir, "no-image")
	b.doCreate("create")
	b.doStart("start", "")
	b.state("state", "")
	b.delete("delete", "")
}

func createFails(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.doCreate("create")
	b.state("state", "")
	b.connect("connect")
	a.calls("calls", ctl)
}

func diesInCreate(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	if b.doCreate("create") != nil {
		return
	}
	b.wait("wait", "")
	b.state("state", "")
	b.doStart("start", "")
	b.delete("delete", "")
}

func diesInStart(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.doCreate("create")
	b.doStart("start", "")
	b.wait("wait", "")
	b.delete("delete", "")
}

func startFails(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.doCreate("create")
	b.doStart("start", "")
	b.state("state", "")
	b.kill("kill", "", 9, false)
	b.wait("wait", "")
	b.delete("delete", "")
}

func execFails(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.exec("exec", "e1", "sleep", "1000")
	b.doStart("start exec", "e1")
	b.state("state", "e1")
	b.wait("wait", "e1")
	b.delete("delete exec", "e1")
	b.end()
}

func pauseFails(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.ok("pause", b.shim.Pause(b.Context(), &taskapi.PauseRequest{ID: b.id}))
	b.state("state", "")
	b.end()
}

// killFails: the runtime says that there is nothing to be killed although there is.
func killFails(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sh", "-c", "exit 0")
	b.up()
	b.wait("wait", "")
	b.kill("kill", "", 9, false)
	b.delete("delete", "")
}

func deleteFails(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sh", "-c", "exit 5")
	b.up()
	b.wait("wait", "")
	r, err := b.shim.Delete(b.Context(), &taskapi.DeleteRequest{ID: b.id})
	b.answer("delete", r, err)
	b.state("state after it", "")
	b.delete("second delete", "")
}

// runtimeForgets: somebody has deleted the container behind the shim's back.
func runtimeForgets(a *act, ctl *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.kill("kill", "", 15, false)
	b.exec("exec", "e1", "true")
	for _, pid := range ctl.Processes(a) {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
	b.wait("wait", "")
	b.await(order.Exited, "c1", "")
	b.delete("delete", "")
}
