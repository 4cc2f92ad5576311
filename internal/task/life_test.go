package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/order"
)

const oNonblock = unix.O_NONBLOCK

func mkfifo(path string) error { return unix.Mkfifo(path, 0o600) }

func (b *box) state(exec string) *task.StateResponse {
	b.t.Helper()
	s, err := b.State(b.t.Context(), &task.StateRequest{ID: b.id, ExecID: exec})
	if err != nil {
		b.t.Fatalf("state %q: %v", exec, err)
	}
	return s
}

func TestLifeOfAContainer(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sh", "-c", "echo out; echo err >&2; exit 7")
	stdout, out := s.output("out")
	stderr, errs := s.output("err")
	b.request.Stdout, b.request.Stderr = stdout, stderr
	pid := b.create()
	if st := b.state(""); st.Status != apitypes.Status_CREATED || st.Pid != pid || st.Bundle != b.bundle || st.Stdout != stdout {
		t.Errorf("state after create: %v", st)
	}
	if got := b.start(""); got != pid {
		t.Errorf("start answered pid %d, create %d", got, pid)
	}
	if status := b.wait(""); status != 7 {
		t.Errorf("status %d, want 7", status)
	}
	if st := b.state(""); st.Status != apitypes.Status_STOPPED || st.ExitStatus != 7 || st.ExitedAt.AsTime().Year() < 2000 {
		t.Errorf("state after exit: %v", st)
	}
	d := b.mustDelete("")
	if d.Pid != pid || d.ExitStatus != 7 || d.ExitedAt.AsTime().Year() < 2000 {
		t.Errorf("delete answered %v", d)
	}
	if o, e := out(), errs(); o != "out\n" || e != "err\n" {
		t.Errorf("stdout %q, stderr %q", o, e)
	}
	b.is(order.Deleted, "")
	want := []order.Kind{order.Created, order.Started, order.Exited, order.Deleted}
	if got := s.kinds(b.id); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	if _, err := b.State(t.Context(), &task.StateRequest{ID: b.id}); !errdefs.IsNotFound(err) {
		t.Errorf("state after delete: %v, want NotFound", err)
	}
}

func TestManyExecsAtOnce(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	const n = 60
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			id := "e" + strconv.Itoa(i)
			ctx := t.Context()
			if err := b.addExec(id, "sh", "-c", "exit "+strconv.Itoa(i)); err != nil {
				t.Errorf("exec %s: %v", id, err)
				return
			}
			if _, err := b.Start(ctx, &task.StartRequest{ID: b.id, ExecID: id}); err != nil {
				t.Errorf("start %s: %v", id, err)
				return
			}
			w, err := b.Wait(ctx, &task.WaitRequest{ID: b.id, ExecID: id})
			if err != nil || w.ExitStatus != uint32(i) {
				t.Errorf("wait %s: %v, %v; want status %d", id, w, err, i)
			}
			if d, err := b.del(id); err != nil || d.ExitStatus != uint32(i) {
				t.Errorf("delete %s: %v, %v", id, d, err)
			}
		})
	}
	wg.Wait()
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	if status := b.wait(""); status != 128+9 {
		t.Errorf("status %d, want 137", status)
	}
	b.mustDelete("")
	entries, err := os.ReadDir(b.bundle)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "e1") {
			t.Errorf("%s was left in the bundle", e.Name())
		}
	}
}

// W3: a created task that is deleted is killed first; its exit, with a real status
// and time, is announced before its delete.
func TestW3DeleteOfACreatedTask(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	pid := b.create()
	d := b.mustDelete("")
	if d.Pid != pid || d.ExitStatus != 137 || d.ExitedAt.AsTime().Year() < 2000 {
		t.Errorf("delete answered %v", d)
	}
	b.is(order.Deleted, "")
	want := []order.Kind{order.Created, order.Exited, order.Deleted}
	if got := s.kinds(b.id); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

// Invariant 8: a created init that is killed has an exit, State and Wait see it.
func TestKillOfACreatedTask(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	if _, err := b.Start(t.Context(), &task.StartRequest{ID: b.id}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("start of a dead init: %v, want FailedPrecondition", err)
	}
	b.mustDelete("")
}

// Invariant 11, W10, #10589: an exec that cannot be started has no start and no
// exit, its Wait does not hang, a second Start is refused, and init's exit is not
// held back by it.
func TestW10ExecThatCannotStart(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	if err := b.addExec("x", "no-such-binary"); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := b.Wait(context.Background(), &task.WaitRequest{ID: b.id, ExecID: "x"})
		waited <- err
	}()
	_, err := b.Start(t.Context(), &task.StartRequest{ID: b.id, ExecID: "x"})
	if err == nil || !strings.Contains(err.Error(), "no-such-binary") || !strings.Contains(err.Error(), "OCI runtime exec failed") {
		t.Errorf("start: %v", err)
	}
	if err := <-waited; !errdefs.IsFailedPrecondition(err) && !errdefs.IsNotFound(err) {
		t.Errorf("wait: %v", err)
	}
	if st := b.state("x"); st.Status != apitypes.Status_CREATED {
		t.Errorf("state %v, want CREATED", st.Status)
	}
	if _, err := b.Start(t.Context(), &task.StartRequest{ID: b.id, ExecID: "x"}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second start: %v, want FailedPrecondition", err)
	}
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	b.mustDelete("x")
	b.mustDelete("")
}

// W1: in the host's pid namespace what init leaves behind is killed however early
// init died.
func TestW1LeftBehindInTheHostsPidNamespace(t *testing.T) {
	s := newShim(t)
	b := s.container(hostPID, "sh", "-c", "sleep 1000 & sleep 1000 & exit 3")
	pid := b.create()
	b.start("")
	if status := b.wait(""); status != 3 {
		t.Errorf("status %d, want 3", status)
	}
	// Invariant 27: of a stopped task the list is its init, and nobody else is left.
	if p, err := b.Pids(t.Context(), &task.PidsRequest{ID: b.id}); err != nil || len(p.Processes) != 1 || p.Processes[0].Pid != pid {
		t.Errorf("processes after init's exit: %v, %v", p, err)
	}
	c, err := s.Service.find(b.id)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := c.cgroup().Pids(); err != nil || len(left) > 0 {
		t.Errorf("left in the cgroup: %v, %v", left, err)
	}
	b.mustDelete("")
}

// W18: execs that are being started while init dies in the host's pid namespace.
func TestW18ExecsRaceInitsDeath(t *testing.T) {
	s := newShim(t)
	for range 5 {
		b := s.container(hostPID, "sleep", "1000")
		b.create()
		b.start("")
		var wg sync.WaitGroup
		for i := range 8 {
			id := "e" + strconv.Itoa(i)
			if err := b.addExec(id, "sleep", "1000"); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { _, _ = b.Start(context.Background(), &task.StartRequest{ID: b.id, ExecID: id}) })
		}
		if err := b.kill("", 9); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		b.wait("")
		b.mustDelete("")
	}
}

func TestPauseAndResume(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	if _, err := b.Pause(t.Context(), &task.PauseRequest{ID: b.id}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pause before start: %v", err)
	}
	b.start("")
	if _, err := b.Pause(t.Context(), &task.PauseRequest{ID: b.id}); err != nil {
		t.Fatal(err)
	}
	if st := b.state(""); st.Status != apitypes.Status_PAUSED {
		t.Errorf("state %v, want PAUSED", st.Status)
	}
	if err := b.addExec("x", "true"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exec while paused: %v", err)
	}
	if _, err := b.Resume(t.Context(), &task.ResumeRequest{ID: b.id}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Resume(t.Context(), &task.ResumeRequest{ID: b.id}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second resume: %v", err)
	}
	b.is(order.Paused, "")
	b.is(order.Resumed, "")
}

// Row 20: a paused container dies of a SIGKILL.
func TestRow20KillWhilePaused(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	if _, err := b.Pause(t.Context(), &task.PauseRequest{ID: b.id}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.del(""); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete while paused: %v", err)
	}
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("")
}

func TestPidsNamesExecs(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	initPid := b.create()
	b.start("")
	execPid := b.exec("x", "sleep", "1000")
	p, err := b.Pids(t.Context(), &task.PidsRequest{ID: b.id})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]string{}
	for _, i := range p.Processes {
		seen[i.Pid] = ""
		if i.Info != nil {
			v, err := typeurl.UnmarshalAny(i.Info)
			if err != nil {
				t.Fatal(err)
			}
			seen[i.Pid] = v.(*options.ProcessDetails).ExecID
		}
	}
	if id, ok := seen[initPid]; !ok || id != "" || seen[execPid] != "x" || len(seen) != 2 {
		t.Errorf("pids %v; init %d, exec %d", seen, initPid, execPid)
	}
}

// The exit status is in the bundle for the delete command.
func TestExitStatusIsKeptInTheBundle(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sh", "-c", "exit 42")
	pid := b.create()
	b.start("")
	b.wait("")
	c, err := s.find(b.id)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := c.bundle.ReadInitExit(); err != nil || e.Status != 42 || e.PID != int(pid) {
		t.Errorf("kept %v, %v", e, err)
	}
}

func TestStdinIsClosedByCloseIO(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "cat")
	stdout, out := s.output("out")
	stdin := filepath.Join(s.dir, "in")
	if err := mkfifo(stdin); err != nil {
		t.Fatal(err)
	}
	b.request.Stdin, b.request.Stdout = stdin, stdout
	w, err := os.OpenFile(stdin, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.create()
	b.start("")
	if _, err := fmt.Fprint(w, "hello"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := b.CloseIO(t.Context(), &task.CloseIORequest{ID: b.id, Stdin: true}); err != nil {
		t.Fatal(err)
	}
	if status := b.wait(""); status != 0 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("")
	if got := out(); got != "hello" {
		t.Errorf("cat printed %q", got)
	}
}

func TestTerminalOfInitAndExec(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	b.start("")
	stdout, out := s.output("tty")
	data := `{"args":["sh","-c","test -t 1 && stty size"],"cwd":"/","terminal":true,"env":["PATH=/bin"]}`
	_, err := b.Exec(t.Context(), &task.ExecProcessRequest{ID: b.id, ExecID: "tty", Terminal: true, Stdout: stdout, Spec: anyJSON(data)})
	if err != nil {
		t.Fatal(err)
	}
	b.start("tty")
	if _, err := b.ResizePty(t.Context(), &task.ResizePtyRequest{ID: b.id, ExecID: "tty", Width: 1 << 20, Height: 24}); err != nil {
		t.Errorf("resize: %v", err)
	}
	if status := b.wait("tty"); status != 0 {
		t.Errorf("no terminal: status %d", status)
	}
	b.mustDelete("tty")
	if got := out(); !strings.Contains(got, " ") {
		t.Errorf("stty printed %q", got)
	}
}

func TestShutdownWaitsForTheLastContainer(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	b.create()
	ask := func() {
		t.Helper()
		if _, err := s.Shutdown(t.Context(), &task.ShutdownRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	select {
	case <-s.shutdown:
		t.Fatal("shut down with a container")
	default:
	}
	b.mustDelete("")
	ask()
	ask()
	<-s.shutdown
	if _, err := s.Create(t.Context(), s.container(nil, "true").request); !errdefs.IsUnavailable(err) {
		t.Errorf("create while shutting down: %v, want Unavailable", err)
	}
}

func TestConnect(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "sleep", "1000")
	pid := b.create()
	for id, want := range map[string]uint32{b.id: pid, "nobody": 0} {
		r, err := s.Connect(t.Context(), &task.ConnectRequest{ID: id})
		if err != nil || r.TaskPid != want || int(r.ShimPid) != os.Getpid() {
			t.Errorf("connect %s: %v, %v; want task pid %d", id, r, err, want)
		}
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	s := newShim(t)
	b := s.container(nil, "no-such-binary")
	_, err := b.Create(t.Context(), b.request)
	if err == nil || !strings.Contains(err.Error(), "OCI runtime create failed") {
		t.Fatalf("create: %v", err)
	}
	if _, err := b.State(t.Context(), &task.StateRequest{ID: b.id}); !errdefs.IsNotFound(err) {
		t.Errorf("state: %v, want NotFound", err)
	}
	if got := s.kinds(b.id); len(got) != 0 {
		t.Errorf("events %v of a container that was never made (#6429)", got)
	}
	if _, err := os.Stat("/sys/fs/cgroup/pids/lark-test/" + b.id); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its cgroup was left: %v", err)
	}
}
