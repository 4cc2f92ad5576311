package compat

// An act: one scenario played to one shim, and what was seen of it.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/shimclient"
	"github.com/larkshim/lark/internal/spec"
)

// patience bounds every wait; only a fault comes near it.
const patience = 2 * time.Minute

// act is one scenario with one shim.
type act struct {
	*testing.T
	cfg  shimclient.Config
	shim *shimclient.Shim
	base string // of cgroups

	mu      sync.Mutex
	events  []shimclient.Event
	changed chan struct{}
	seen    map[string]string // what was observed, by name
	order   []string
	names   map[float64]string // of pids
	hidden  []string           // pairs for strings.NewReplacer: what differs from run to run
	boxes   map[string]*box
}

// box is one container of an act.
type box struct {
	*act
	id     string
	bundle *shimclient.Bundle
	create *taskapi.CreateTaskRequest
}

// newAct begins an act with a shim's binary and an OCI runtime.
func newAct(t *testing.T, shim, runtime string) *act {
	home, err := shimclient.NewHome("")
	if err != nil {
		t.Fatal(err)
	}
	a := &act{
		T: t, base: "/lark-compat-" + filepath.Base(home.Dir),
		seen: map[string]string{}, names: map[float64]string{0: "none"}, boxes: map[string]*box{},
		changed: make(chan struct{}),
	}
	a.hidden = []string{home.Dir, "HOME", a.base, "CGROUP", runtime, "RUNTIME", rootfs, "ROOTFS"}
	sink, err := shimclient.NewSink(home, slog.New(slog.NewTextHandler(io.Discard, nil)), a.observe)
	if err != nil {
		t.Fatal(err)
	}
	a.cfg = shimclient.Config{Binary: shim, Runtime: runtime, Namespace: "compat", Home: home, Sink: sink, Era: shimclient.EraBootstrap}
	t.Cleanup(func() {
		if a.shim != nil {
			if err := a.shim.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(sink.Close(), home.Close()); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *act) observe(e shimclient.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, e)
	close(a.changed)
	a.changed = make(chan struct{})
}

// await waits for an event of a container, or of its exec.
func (a *act) await(kind order.Kind, id, exec string) {
	a.Helper()
	limit := time.After(patience)
	for {
		a.mu.Lock()
		there := slices.ContainsFunc(a.events, func(e shimclient.Event) bool {
			return e.Task.Kind == kind && e.Task.Container == id && e.Task.Exec == exec
		})
		changed := a.changed
		a.mu.Unlock()
		if there {
			return
		}
		select {
		case <-changed:
		case <-limit:
			a.Fatalf("no %v of %q %q; events: %v", kind, id, exec, a.events)
		}
	}
}

// note keeps an observation. One name is used once.
func (a *act) note(name, format string, args ...any) {
	a.Helper()
	if _, ok := a.seen[name]; ok {
		a.Fatalf("%q was noted before", name)
	}
	a.seen[name] = a.hide(fmt.Sprintf(format, args...))
	a.order = append(a.order, name)
}

// temporary are the names that a shim makes up.
var temporary = regexp.MustCompile(`/tmp/(pty|runc-process|lark-pty|lark-)[0-9]+(/[a-z.]+)?|/proc/[0-9]+/fd/[0-9]+`)

func (a *act) hide(s string) string {
	return temporary.ReplaceAllString(strings.NewReplacer(a.hidden...).Replace(s), "TEMPORARY")
}

// classes are the classes of errors that clients tell apart.
var classes = map[string]func(error) bool{
	"NotFound": errdefs.IsNotFound, "AlreadyExists": errdefs.IsAlreadyExists,
	"FailedPrecondition": errdefs.IsFailedPrecondition, "InvalidArgument": errdefs.IsInvalidArgument,
	"NotImplemented": errdefs.IsNotImplemented, "Unavailable": errdefs.IsUnavailable,
	"DeadlineExceeded": errdefs.IsDeadlineExceeded, "Internal": errdefs.IsInternal,
}

// phrases are the words in errors that clients, their tests or their users look for.
var phrases = []string{
	"container not created", "process already finished", "cannot delete a running process",
	"OCI runtime create failed", "OCI runtime exec failed", "OCI runtime start failed",
	"OCI runtime restore failed", "OCI runtime pause failed", "init process is not running",
	"executable file not found in $PATH", `"no-runc"`, "criu-dump.log", "no such file or directory",
}

// told is an error as clients see it: its class, and the phrases in it.
func told(err error) string {
	class := "Unknown"
	for name, is := range classes {
		if is(err) {
			class = name
		}
	}
	var said []string
	for _, p := range phrases {
		if strings.Contains(err.Error(), p) {
			said = append(said, p)
		}
	}
	return fmt.Sprintf("%s %q", class, said)
}

// answer keeps what a call answered.
func (a *act) answer(name string, m proto.Message, err error) {
	a.Helper()
	if err != nil {
		a.Logf("%s: %v", name, err)
		a.note(name, "error: %s", told(err))
		return
	}
	a.note(name, "%s", a.plain(m))
}

// plain is a message as text that is the same for the same content.
func (a *act) plain(m proto.Message) string {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		a.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		a.Fatal(err)
	}
	for k, v := range fields {
		switch k {
		case "pid", "task_pid", "shim_pid":
			name, ok := a.names[v.(float64)]
			if !ok {
				name = "a pid"
			}
			fields[k] = name
		case "exited_at":
			if strings.HasPrefix(v.(string), "0001-") {
				fields[k] = "never"
			} else {
				fields[k] = "then"
			}
		}
	}
	var b bytes.Buffer
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprintf(&b, "%s=%v ", k, fields[k])
	}
	return strings.TrimSpace(b.String())
}

// finish ends the containers that still run, and keeps all events.
func (a *act) finish() {
	a.Helper()
	for _, b := range a.boxes {
		if _, err := os.Stat(b.bundle.Path); err == nil && a.shim != nil {
			if st, err := a.shim.State(a.Context(), &taskapi.StateRequest{ID: b.id}); err == nil && st.Pid != 0 {
				_ = a.shim.Kill(a.Context(), &taskapi.KillRequest{ID: b.id, Signal: 9})
				_, _ = a.shim.Wait(a.Context(), &taskapi.WaitRequest{ID: b.id})
				a.await(order.Exited, b.id, "")
				_, _ = a.shim.Delete(a.Context(), &taskapi.DeleteRequest{ID: b.id})
				a.await(order.Deleted, b.id, "")
			}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(a.boxes)) {
		var lines []string
		for _, e := range a.events {
			if e.Task.Container != id {
				continue
			}
			m, err := e.Payload.UnmarshalNew()
			if err != nil {
				a.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%s %s %s: %s", e.Namespace, e.Topic, e.Payload.TypeUrl, a.plain(m)))
		}
		a.note("events of "+id, "%s", strings.Join(lines, "\n"))
	}
}

// container makes a bundle, and starts the shim if it is the act's first.
func (a *act) container(id string, change func(*specs.Spec), args ...string) *box {
	a.Helper()
	s := spec.Default(spec.Options{Rootfs: rootfs, Args: args, Cgroup: a.base + "-" + id})
	if change != nil {
		change(s)
	}
	bundle, err := a.cfg.Home.NewBundle(id, s)
	if err != nil {
		a.Fatal(err)
	}
	b := &box{act: a, id: id, bundle: bundle}
	a.boxes[id] = b
	if a.shim == nil {
		if a.shim, err = shimclient.Start(a.Context(), a.cfg, bundle); err != nil {
			a.Fatal(err)
		}
		a.names[float64(a.shim.Pid)] = "the shim"
	} else {
		a.shim.Adopt(bundle)
	}
	opts, err := a.cfg.Options()
	if err != nil {
		a.Fatal(err)
	}
	b.create = &taskapi.CreateTaskRequest{ID: id, Bundle: bundle.Path, Options: opts}
	return b
}

// further sets runtime options of the containers that are made from now on.
func (a *act) further(o *options.Options) { a.cfg.Further = o }

func (b *box) doCreate(name string) error {
	b.Helper()
	r, err := b.shim.Create(b.Context(), b.create)
	if err == nil && r.Pid != 0 {
		b.names[float64(r.Pid)] = "init of " + b.id
	}
	b.answer(name, r, err)
	return err
}

func (b *box) doStart(name, exec string) error {
	b.Helper()
	r, err := b.shim.Task.Start(b.Context(), &taskapi.StartRequest{ID: b.id, ExecID: exec})
	if err == nil {
		who := "init of " + b.id
		if exec != "" {
			who = "exec " + exec
		}
		b.names[float64(r.Pid)] = who
	}
	b.answer(name, r, err)
	return err
}

// up creates and starts the container.
func (b *box) up() {
	b.Helper()
	if err := b.doCreate("create " + b.id); err != nil {
		b.Fatal(err)
	}
	if err := b.doStart("start "+b.id, ""); err != nil {
		b.Fatal(err)
	}
}

func (b *box) state(name, exec string) {
	b.Helper()
	r, err := b.shim.State(b.Context(), &taskapi.StateRequest{ID: b.id, ExecID: exec})
	b.answer(name, r, err)
}

func (b *box) connect(name string) {
	b.Helper()
	r, err := b.shim.Connect(b.Context(), &taskapi.ConnectRequest{ID: b.id})
	b.answer(name, r, err)
}

func (b *box) wait(name, exec string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	r, err := b.shim.Wait(ctx, &taskapi.WaitRequest{ID: b.id, ExecID: exec})
	b.answer(name, r, err)
	if err == nil && r.ExitedAt.AsTime().Year() > 1970 {
		// Upstream's shim answers before its event is queued, and a Delete that comes
		// at once would overtake it (W11).
		b.await(order.Exited, b.id, exec)
	}
}

func (b *box) delete(name, exec string) {
	b.Helper()
	r, err := b.shim.Delete(b.Context(), &taskapi.DeleteRequest{ID: b.id, ExecID: exec})
	b.answer(name, r, err)
	if err == nil && exec == "" {
		b.await(order.Deleted, b.id, "")
	}
}

// ok keeps the outcome of a call that answers nothing.
func (a *act) ok(name string, err error) {
	a.Helper()
	a.answer(name, &types.Mount{}, err)
}

func (b *box) kill(name, exec string, signal uint32, all bool) {
	b.Helper()
	b.ok(name, b.shim.Kill(b.Context(), &taskapi.KillRequest{ID: b.id, ExecID: exec, Signal: signal, All: all}))
}

// end kills init and deletes the container.
func (b *box) end() {
	b.Helper()
	b.kill("kill "+b.id, "", 9, false)
	b.wait("wait "+b.id, "")
	b.delete("delete "+b.id, "")
}

func (b *box) exec(name, id string, args ...string) error {
	b.Helper()
	return b.execWith(name, &taskapi.ExecProcessRequest{ExecID: id}, args...)
}

func (b *box) execWith(name string, r *taskapi.ExecProcessRequest, args ...string) error {
	b.Helper()
	r.ID, r.Spec = b.id, b.process(args...)
	err := b.shim.Exec(b.Context(), r)
	b.ok(name, err)
	return err
}

func (b *box) process(args ...string) *anypb.Any {
	b.Helper()
	p, err := shimclient.ProcessSpec(&specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin:/usr/bin:/sbin"}})
	if err != nil {
		b.Fatal(err)
	}
	return p
}
