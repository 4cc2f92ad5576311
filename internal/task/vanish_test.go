package task

// F01: the world that a container lives in vanishes, one part at a time, at
// each point of the container's life, and comes back.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/vanish"
)

// point is how far a container has come when something vanishes.
type point int

const (
	absent point = iota
	isCreated
	isRunning
	execRuns
	isPaused
	execExited
	hasExited
	points
)

func (p point) String() string {
	return [...]string{"absent", "created", "running", "exec running", "paused", "exec exited", "exited"}[p]
}

// ownState is the runtime's state of the container alone.
const ownState = "the container's own state"

// vanishing is a container from which something is taken.
type vanishing struct {
	*box
	ctl     *fake.Control
	at      string
	runtime string // the directory of the binary
	// exec is whether there is an exec e, and runs whether it lives.
	exec, execLives bool
	// made, lives and deleted are what has become of the container.
	made, lives, deleted bool
}

func TestF01WorldVanishes(t *testing.T) {
	things := map[string]func(v *vanishing) vanish.Thing{
		"the runtime":             func(v *vanishing) vanish.Thing { return vanish.Path("the runtime", v.binary()) },
		"its directory":           func(v *vanishing) vanish.Thing { return vanish.Path("its directory", v.runtime) },
		"the bundle":              func(v *vanishing) vanish.Thing { return vanish.Path("the bundle", v.bundle) },
		"config.json":             func(v *vanishing) vanish.Thing { return vanish.Path("config.json", v.bundle+"/config.json") },
		"the log":                 func(v *vanishing) vanish.Thing { return vanish.Path("the log", v.bundle+"/log.json") },
		"the cgroup":              func(v *vanishing) vanish.Thing { return vanish.Group("the cgroup", cgroupsOf(v.id)...) },
		"a FIFO":                  func(v *vanishing) vanish.Thing { return vanish.Path("a FIFO", v.request.Stdout) },
		"the temporary directory": func(v *vanishing) vanish.Thing { return vanish.Path("TMPDIR", os.Getenv("TMPDIR")) },
		"the directory of states": func(v *vanishing) vanish.Thing { return vanish.Path("the states", v.ctl.Root()+"/lark-test") },
		ownState:                  func(v *vanishing) vanish.Thing { return vanish.Path("the state", v.ctl.Root()+"/lark-test/"+v.id) },
	}
	for name, thing := range things {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			t.Setenv("TMPDIR", t.TempDir())
			for p := range points {
				s.live(t, name, thing, p, false, nil)
				if p != absent {
					s.live(t, name, thing, p, true, nil)
				}
			}
			for _, p := range []point{isRunning, execRuns} { // with a kill-all in the end
				s.live(t, name+" (host's pid namespace)", thing, p, true, hostPID)
			}
		})
	}
}

// live is the life of one container, from which a thing is taken at a point.
// With kill it is killed meanwhile.
func (s *shim) live(t *testing.T, name string, thing func(*vanishing) vanish.Thing, p point, kill bool, change func(*specs.Spec)) {
	t.Helper()
	v := s.vanishing(fmt.Sprintf("%s vanishes, %v", name, p), change)
	v.advance(p)
	back := thing(v).Away(t)
	v.try(p, kill)
	back()
	if v.deleted && strings.HasPrefix(name, ownState) {
		// The runtime was asked, and knew nothing of it.
		_ = os.RemoveAll(v.ctl.Root() + "/lark-test/" + v.id)
	}
	v.end()
	if t.Failed() {
		t.Fatalf("log:\n%s", s.log)
	}
	s.log.clear()
}

// vanishing prepares a bundle whose runtime is in a directory of its own.
func (s *shim) vanishing(at string, change func(*specs.Spec)) *vanishing {
	s.t.Helper()
	v := &vanishing{at: at}
	v.box, v.ctl = s.scripted(change, fake.Profile{}, "sleep", "1000")
	v.runtime = v.bundle + ".runtime"
	binary := filepath.Join(v.runtime, "fakerunc")
	source := v.bundle + ".source"
	err := errors.Join(os.Mkdir(v.runtime, 0o700), os.Rename(v.binary(), binary), os.Mkdir(source, 0o700), mkfifo(v.bundle+".stdout"))
	if err != nil {
		s.t.Fatal(err)
	}
	v.use(binary, v.ctl.Root())
	reader, err := os.OpenFile(v.bundle+".stdout", os.O_RDWR|oNonblock, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { reader.Close() })
	v.request.Stdout = v.bundle + ".stdout"
	v.request.Rootfs = []*types.Mount{{Type: "bind", Source: source, Options: []string{"bind"}}}
	return v
}

// advance brings the container to the point, in an unharmed world.
func (v *vanishing) advance(p point) {
	v.t.Helper()
	if p == absent {
		return
	}
	pid := v.create()
	v.made, v.lives = true, true
	until(v.t, v.at+": init does not wait for its start", func() bool {
		// The fake runtime's init opens a FIFO in the runtime's directory.
		call, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		return err == nil && strings.HasPrefix(string(call), fmt.Sprint(unix.SYS_OPENAT, " "))
	})
	if p == isCreated {
		return
	}
	v.start("")
	switch p {
	case execRuns:
		v.box.exec("e", "sleep", "1000")
		v.exec, v.execLives = true, true
	case execExited:
		v.box.exec("e", "true")
		v.wait("e")
		v.exec = true
	case isPaused:
		if _, err := v.Pause(v.t.Context(), &task.PauseRequest{ID: v.id}); err != nil {
			v.t.Fatal(err)
		}
	case hasExited:
		if err := v.kill("", 9); err != nil {
			v.t.Fatal(err)
		}
		v.wait("")
		v.lives = false
	}
}

// tried judges an answer about the container, or about its exec.
func (v *vanishing) tried(call string, known, lives bool, err error) bool {
	v.t.Helper()
	vanish.Judge(v.t, v.at, call, known && (lives || call != "kill" && call != "exec kill"), err)
	return err == nil
}

// try makes every call that the point allows while something is away, and says
// that what was refused has not happened.
func (v *vanishing) try(p point, kill bool) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), patience)
	defer cancel()
	if p == absent {
		_, err := v.Create(ctx, v.request)
		vanish.Judge(v.t, v.at, "create", true, err)
		v.made, v.lives = err == nil, err == nil
		return
	}
	v.tried("state", true, v.lives, second(v.State(ctx, &task.StateRequest{ID: v.id})))
	v.tried("pids", true, v.lives, second(v.Pids(ctx, &task.PidsRequest{ID: v.id})))
	v.tried("stats", true, v.lives, second(v.Stats(ctx, &task.StatsRequest{ID: v.id})))
	v.tried("connect", true, v.lives, second(v.Connect(ctx, &task.ConnectRequest{ID: v.id})))
	v.tried("update", true, v.lives, second(v.Update(ctx, &task.UpdateTaskRequest{ID: v.id, Resources: &anypb.Any{Value: []byte("{}")}})))
	v.tried("close io", true, v.lives, second(v.CloseIO(ctx, &task.CloseIORequest{ID: v.id, Stdin: true})))
	if p == isCreated && !kill {
		if !v.tried("start", true, true, second(v.Start(ctx, &task.StartRequest{ID: v.id}))) && v.count(order.Started, "") > 0 {
			v.t.Errorf("%s: a start that was refused was published", v.at)
		}
	}
	v.tryExec(ctx, p)
	if !kill {
		v.tryPause(ctx)
	}
	if v.exec {
		v.tried("exec state", true, v.execLives, second(v.State(ctx, &task.StateRequest{ID: v.id, ExecID: "e"})))
	}
	if v.execLives && kill && v.tried("exec kill", true, true, second(v.Kill(ctx, &task.KillRequest{ID: v.id, ExecID: "e", Signal: 9}))) {
		v.wait("e")
		v.execLives = false
	}
	if v.exec && !v.execLives && v.tried("exec delete", true, false, second(v.Delete(ctx, &task.DeleteRequest{ID: v.id, ExecID: "e"}))) {
		v.exec = false
	}
	if v.lives && p != isCreated { // a created one would be killed by it
		if v.tried("delete", true, true, second(v.Delete(ctx, &task.DeleteRequest{ID: v.id}))) {
			v.t.Errorf("%s: a running container was deleted", v.at)
		}
	}
	if kill && v.lives {
		if v.tried("kill", true, true, v.kill("", 9)) {
			v.exits()
		} else if v.count(order.Exited, "") > 0 {
			v.t.Errorf("%s: a kill that was refused has killed", v.at)
		}
	}
	if !v.lives {
		v.tryDelete(ctx)
	}
}

// tryExec adds and starts an exec, which must not run if that was refused.
func (v *vanishing) tryExec(ctx context.Context, p point) {
	v.t.Helper()
	if !v.lives || p == isCreated || p == isPaused {
		return
	}
	before := len(v.ctl.Processes(v.t))
	data, err := json.Marshal(&specs.Process{Args: []string{"sleep", "1000"}, Cwd: "/", Env: []string{"PATH=/bin:/usr/bin"}})
	if err != nil {
		v.t.Fatal(err)
	}
	add := &task.ExecProcessRequest{ID: v.id, ExecID: "x", Stdout: v.request.Stdout, Spec: &anypb.Any{Value: data}}
	if !v.tried("exec", true, true, second(v.Exec(ctx, add))) {
		return
	}
	if v.tried("exec start", true, true, second(v.Start(ctx, &task.StartRequest{ID: v.id, ExecID: "x"}))) {
		if !v.tried("exec kill", true, true, v.kill("x", 9)) {
			v.t.Errorf("%s: an exec that runs cannot be killed", v.at)
		}
		v.wait("x")
	} else {
		until(v.t, v.at+": an exec that was refused runs", func() bool { return len(v.ctl.Processes(v.t)) <= before })
		if v.count(order.ExecStarted, "x") > 0 {
			v.t.Errorf("%s: an exec that was refused was published", v.at)
		}
	}
	if !v.tried("exec delete", true, true, second(v.Delete(ctx, &task.DeleteRequest{ID: v.id, ExecID: "x"}))) {
		v.t.Errorf("%s: an exec that does not run cannot be deleted", v.at)
	}
}

// tryPause turns the freezer, to and fro if it can.
func (v *vanishing) tryPause(ctx context.Context) {
	v.t.Helper()
	before := v.state("").Status
	pause := func() error { return second(v.Pause(ctx, &task.PauseRequest{ID: v.id})) }
	resume := func() error { return second(v.Resume(ctx, &task.ResumeRequest{ID: v.id})) }
	calls := map[apitypes.Status]func() error{apitypes.Status_RUNNING: pause, apitypes.Status_PAUSED: resume}
	call := calls[before]
	if call == nil {
		return
	}
	if v.tried("pause or resume", true, v.lives, call()) {
		if v.tried("resume or pause", true, v.lives, calls[v.state("").Status]()) && v.state("").Status == before {
			return
		}
		v.t.Errorf("%s: a turn that worked cannot be undone", v.at)
	} else if now := v.state("").Status; now != before {
		v.t.Errorf("%s: a turn that was refused has made %v of %v", v.at, now, before)
	}
}

// exits waits for init's exit after a Kill that was answered.
func (v *vanishing) exits() {
	v.t.Helper()
	if status := v.wait(""); status != 137 {
		v.t.Errorf("%s: status %d", v.at, status)
	}
	v.lives, v.execLives = false, false
}

// tryDelete deletes the container: either it is done, or nothing has happened.
func (v *vanishing) tryDelete(ctx context.Context) {
	v.t.Helper()
	if v.tried("delete", true, true, second(v.Delete(ctx, &task.DeleteRequest{ID: v.id}))) {
		v.deleted = true
		return
	}
	if v.count(order.Deleted, "") > 0 {
		v.t.Errorf("%s: a delete that was refused was published", v.at)
	}
	v.tried("state", true, true, second(v.State(ctx, &task.StateRequest{ID: v.id})))
}

// count counts the events of one kind that have come so far.
func (v *vanishing) count(kind order.Kind, exec string) (n int) {
	v.events.mu.Lock()
	defer v.events.mu.Unlock()
	for _, e := range v.events.events {
		if e.Container == v.id && e.Kind == kind && e.Exec == exec {
			n++
		}
	}
	return n
}

// end ends the container in a world that is whole again, and says that nothing
// is left.
func (v *vanishing) end() {
	v.t.Helper()
	if v.made && !v.deleted {
		if v.lives {
			if err := v.kill("", 9); err != nil {
				v.t.Errorf("%s: kill in the end: %v", v.at, err)
			}
			v.exits()
		}
		if v.exec {
			v.mustDelete("e")
		}
		if _, err := v.del(""); err != nil {
			v.t.Errorf("%s: delete in the end: %v", v.at, err)
		}
	}
	if _, err := v.find2(); !errdefs.IsNotFound(err) {
		v.t.Errorf("%s: state in the end: %v", v.at, err)
	}
	if v.made {
		v.is(order.Deleted, "")
		for _, k := range []order.Kind{order.Created, order.Exited, order.Deleted} {
			if n := v.count(k, ""); n != 1 {
				v.t.Errorf("%s: %d events %v", v.at, n, k)
			}
		}
	} else {
		v.create() // the id is free
		v.lives, v.made = true, true
		v.end()
		return
	}
	gone(v.t, v.ctl)
	for _, path := range append(cgroupsOf(v.id), filepath.Join(v.ctl.Root(), "lark-test", v.id)) {
		if _, err := os.Lstat(path); err == nil {
			v.t.Errorf("%s: %s is left", v.at, path)
		}
	}
	if table, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(table), v.bundle) {
		v.t.Errorf("%s: a mount is left, %v", v.at, err)
	}
}
