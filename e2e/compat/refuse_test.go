package compat

// Scenarios: what is refused, and in which words.

import (
	"fmt"
	"os"
	"path/filepath"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

var refusalScenarios = []scenario{
	{name: "unknown container", play: unknownContainer},
	{name: "created container", play: createdContainer},
	{name: "running container", play: runningContainer},
	{name: "paused container", play: pausedContainer},
	{name: "stopped container", play: stoppedContainer},
	{name: "delete of a created container", play: deleteCreated},
	{name: "programs that are not there", play: missingPrograms},
	{name: "a runtime that is not there", play: missingRuntime},
	{name: "a running exec started again", play: runningExecStarted},
	{name: "an exited exec started again", play: exitedExecStarted},
	{name: "an exec of nothing", play: execOfNothing},
	{name: "a bundle that is damaged", play: damagedBundle},
}

// everything asks for all that can be asked of a container that is there, and that is
// out of turn in most states. what names the container in the observations.
func (b *box) everything(what string) {
	b.Helper()
	ctx := b.Context()
	b.ok("pause "+what, b.shim.Pause(ctx, &taskapi.PauseRequest{ID: b.id}))
	b.ok("resume "+what, b.shim.Resume(ctx, &taskapi.ResumeRequest{ID: b.id}))
	b.ok("checkpoint "+what, b.shim.Checkpoint(ctx, &taskapi.CheckpointTaskRequest{ID: b.id, Path: filepath.Join(b.cfg.Home.Dir, "image")}))
	b.ok("update "+what, b.shim.Update(ctx, &taskapi.UpdateTaskRequest{ID: b.id, Resources: resources(specs.LinuxResources{})}))
	b.ok("resize "+what, b.shim.ResizePty(ctx, &taskapi.ResizePtyRequest{ID: b.id}))
	b.ok("closeio "+what, b.shim.CloseIO(ctx, &taskapi.CloseIORequest{ID: b.id, Stdin: true}))
	b.execsOf(what)
}

// execsOf asks for what is out of turn of execs.
func (b *box) execsOf(what string) {
	b.Helper()
	ctx := b.Context()
	const gone = "nobody"
	b.state("state of unknown exec "+what, gone)
	b.kill("kill of unknown exec "+what, gone, 9, false)
	b.wait("wait of unknown exec "+what, gone)
	b.delete("delete of unknown exec "+what, gone)
	b.doStart("start of unknown exec "+what, gone)
	b.ok("resize of unknown exec "+what, b.shim.ResizePty(ctx, &taskapi.ResizePtyRequest{ID: b.id, ExecID: gone}))
	b.ok("closeio of unknown exec "+what, b.shim.CloseIO(ctx, &taskapi.CloseIORequest{ID: b.id, ExecID: gone}))
	if what == "created" { // where the shims differ: see the table
		return
	}
	if b.exec("exec "+what, "x-"+b.id, "sleep", "1000") != nil {
		return
	}
	b.exec("exec with the same id "+what, "x-"+b.id, "true")
	b.kill("kill of added exec "+what, "x-"+b.id, 9, false)
	b.ok("resize of added exec "+what, b.shim.ResizePty(ctx, &taskapi.ResizePtyRequest{ID: b.id, ExecID: "x-" + b.id}))
	b.state("state of added exec "+what, "x-"+b.id)
	b.delete("delete of added exec "+what, "x-"+b.id)
	b.state("state of deleted exec "+what, "x-"+b.id)
}

func unknownContainer(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "true")
	b.everything("nowhere")
	b.doStart("start", "")
	b.kill("kill", "", 9, false)
	b.pids("pids")
	r, err := b.shim.Stats(b.Context(), &taskapi.StatsRequest{ID: b.id})
	b.answer("stats", r, err)
}

func createdContainer(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.doCreate("create")
	b.exec("exec", "e1", "true")
	b.everything("created")
	b.kill("kill", "", 9, false)
	b.wait("wait", "")
	b.state("state", "")
	b.doStart("start when dead", "")
	b.delete("delete", "")
}

func runningContainer(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.doStart("second start", "")
	b.delete("delete", "")
	b.ok("resume", b.shim.Resume(b.Context(), &taskapi.ResumeRequest{ID: b.id}))
	b.execsOf("running")
	b.exec("exec", "e1", "sleep", "1000")
	b.doStart("start exec", "e1")
	b.delete("delete of running exec", "e1")
	b.ok("exec of no JSON", b.shim.Exec(b.Context(), &taskapi.ExecProcessRequest{ID: b.id, ExecID: "e3", Spec: &anypb.Any{Value: []byte("{")}}))
	b.ok("update with no JSON", b.shim.Update(b.Context(), &taskapi.UpdateTaskRequest{ID: b.id, Resources: &anypb.Any{Value: []byte("{")}}))
	b.kill("kill with a signal that is none", "", 1000, false)
	b.kill("kill exec", "e1", 9, false)
	b.wait("wait exec", "e1")
	b.end()
}

// runningExecStarted stands alone: upstream's shim counts that exec twice, and does not
// survive the exit of init (W2).
func runningExecStarted(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.exec("exec", "e1", "sleep", "1000")
	b.doStart("start exec", "e1")
	b.doStart("second start", "e1")
	b.kill("kill exec", "e1", 9, false)
	b.wait("wait exec", "e1")
	// The shim may be gone before it answers this.
	_ = b.shim.Kill(b.Context(), &taskapi.KillRequest{ID: b.id, Signal: 9})
	b.wait("wait", "")
	b.connect("connect")
}

// exitedExecStarted: the same of one that has exited already.
func exitedExecStarted(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.exec("exec", "e1", "true")
	b.doStart("start exec", "e1")
	b.wait("wait exec", "e1")
	b.doStart("second start", "e1")
	b.kill("kill", "", 9, false)
	b.wait("wait", "")
	b.connect("connect")
}

func pausedContainer(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.exec("exec", "e1", "true")
	b.ok("pause", b.shim.Pause(b.Context(), &taskapi.PauseRequest{ID: b.id}))
	b.ok("pause again", b.shim.Pause(b.Context(), &taskapi.PauseRequest{ID: b.id}))
	b.doStart("start", "")
	b.delete("delete", "")
	b.execsOf("paused")
	b.doStart("start exec", "e1")
	b.state("state", "")
	b.ok("resume", b.shim.Resume(b.Context(), &taskapi.ResumeRequest{ID: b.id}))
	b.end()
}

func stoppedContainer(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.exec("exec before", "before", "true")
	b.kill("kill", "", 9, false)
	b.wait("wait", "")
	b.await(order.Exited, "c1", "")
	b.everything("stopped")
	b.doStart("start", "")
	b.doStart("start of exec", "before")
	b.pids("pids")
	b.delete("delete", "")
	b.delete("delete again", "")
}

func deleteCreated(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.doCreate("create")
	b.delete("delete", "")
	b.await(order.Exited, "c1", "")
	b.state("state", "")
}

func missingPrograms(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "/no/such/program")
	b.doCreate("create")
	b.note("mounts left", "%d", mountsBelow(a, b.bundle.Path))
	c := a.container("c2", nil, "no-such-program")
	c.doCreate("create of a name")
	d := a.container("c3", nil, "sleep", "1000")
	d.up()
	d.exec("exec", "e1", "no-such-program")
	d.doStart("start exec", "e1")
	d.state("state of exec", "e1")
	d.kill("kill of exec", "e1", 9, false)
	d.wait("wait of exec", "e1")
	d.delete("delete of exec", "e1")
	d.end()
}

func missingRuntime(a *act, _ *fakeruntime.Control) {
	a.further(&options.Options{BinaryName: "no-runc"})
	b := a.container("c1", nil, "true")
	b.doCreate("create")
	b.state("state", "")
	opts, err := a.cfg.Options()
	if err != nil {
		a.Fatal(err)
	}
	opts.Value = []byte("\xff\xff\xff")
	b.create.Options = opts
	b.doCreate("create with options that are none")
	a.further(nil)
}

// execOfNothing stands alone: upstream's shim does not survive it.
func execOfNothing(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	b.await(order.Started, "c1", "") // or it dies with the shim
	b.ok("exec of nothing", b.shim.Exec(b.Context(), &taskapi.ExecProcessRequest{ID: b.id, ExecID: "e2"}))
	b.connect("connect")
}

func damagedBundle(a *act, _ *fakeruntime.Control) {
	for i, text := range []string{"", "{", `{"ociVersion":"1.0.2"}`} {
		b := a.container(fmt.Sprintf("c%d", i), nil, "true")
		if err := os.WriteFile(filepath.Join(b.bundle.Path, "config.json"), []byte(text), 0o600); err != nil {
			a.Fatal(err)
		}
		b.doCreate(fmt.Sprintf("create with config.json %q", text))
	}
	b := a.container("c9", nil, "true")
	b.create.Bundle = filepath.Join(a.cfg.Home.Dir, "nowhere")
	b.doCreate("create without a bundle")
}
