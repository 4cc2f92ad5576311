package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/failpoint"
	// The shim is built by these tests. What it is made of is imported, so that a change
	// of that makes `go test` forget an earlier result.
	_ "github.com/larkshim/lark/internal/bootstrap"
	_ "github.com/larkshim/lark/internal/task"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/shimclient"
	"github.com/larkshim/lark/internal/spec"
)

// patience bounds every wait for what must come; only a fault comes near it.
const patience = time.Minute

// namespace is the containerd namespace of these tests.
const namespace = "lark-crash"

// built has the binaries under test and a root filesystem, made once.
var built struct {
	dir, plain, failing, rootfs, runc string
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lark-crash-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built.dir = dir
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(dir string) (err error) {
	built.plain, built.failing = filepath.Join(dir, "shim"), filepath.Join(dir, "shim-failpoint")
	for path, tags := range map[string]string{built.plain: "", built.failing: "failpoint"} {
		cmd := exec.Command("go", "build", "-buildvcs=false", "-tags", tags, "-o", path, "../../cmd/containerd-shim-lark-v2")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w: %s", err, out)
		}
	}
	if built.runc, err = exec.LookPath("runc"); err != nil {
		return err
	}
	built.rootfs = filepath.Join(dir, "rootfs")
	return spec.Busybox(context.Background(), built.rootfs)
}

// stage is one daemon's part: a private directory, a sink of events, one bundle.
type stage struct {
	t      *testing.T
	cfg    shimclient.Config
	home   *shimclient.Home
	bundle *shimclient.Bundle
	shim   *shimclient.Shim
	id     string
	// checker sees every event; read it when the shim has gone.
	checker *order.Checker
}

var serial int

func newStage(t *testing.T, binary, runtime string, change func(*specs.Spec)) *stage {
	t.Helper()
	return newStageAt(t, built.dir, binary, runtime, change)
}

// newStageAt is newStage below a directory of the caller's choice.
func newStageAt(t *testing.T, dir, binary, runtime string, change func(*specs.Spec)) *stage {
	t.Helper()
	home, err := shimclient.NewHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	checker := order.New()
	sink, err := shimclient.NewSink(home, slog.New(slog.DiscardHandler), func(e shimclient.Event) { checker.Observe(e.Task) })
	if err != nil {
		t.Fatal(err)
	}
	serial++
	s := &stage{t: t, home: home, checker: checker, id: fmt.Sprintf("lark-crash-%d-%d", os.Getpid(), serial)}
	s.cfg = shimclient.Config{Binary: binary, Runtime: runtime, Namespace: namespace, Home: home, Sink: sink}
	// Ends with 7 when it is asked to, so that a status which was made up is told from one
	// which was known.
	c := spec.Default(spec.Options{Rootfs: "rootfs", Cgroup: "/lark-test/" + s.id,
		Args: []string{"sh", "-c", "trap 'exit 7' TERM; sleep 1000 & wait"}, Env: []string{"LARK_MARK=" + s.id}})
	c.Root.Path = "rootfs" // in the bundle, where Create mounts it
	if change != nil {
		change(c)
	}
	if s.bundle, err = home.NewBundle(s.id, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.shim != nil {
			_ = s.shim.Stop(context.Background())
		}
		if err := errors.Join(sink.Close(), home.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// start starts the shim.
func (s *stage) start() error {
	shim, err := shimclient.Start(s.t.Context(), s.cfg, s.bundle)
	if err == nil {
		s.shim = shim
	}
	return err
}

func (s *stage) createRequest() (*taskapi.CreateTaskRequest, error) {
	opts, err := s.cfg.Options()
	if err != nil {
		return nil, err
	}
	return &taskapi.CreateTaskRequest{ID: s.id, Bundle: s.bundle.Path, Options: opts,
		Rootfs: []*types.Mount{{Type: "bind", Source: built.rootfs, Options: []string{"rbind", "ro"}}}}, nil
}

func execSpec(args ...string) *anypb.Any {
	return &anypb.Any{Value: fmt.Appendf(nil, `{"args":["%s"],"cwd":"/","env":["PATH=/bin"]}`, strings.Join(args, `","`))}
}

// life takes the container through everything, to the end of the shim. Its error is the
// first that a call answers.
func (s *stage) life(ctx context.Context) error {
	err := s.lifeOf(ctx)
	if err == nil {
		s.shim.Leave(ctx)
	}
	return err
}

// lifeOf is the container's part of it.
func (s *stage) lifeOf(ctx context.Context) error {
	r, err := s.createRequest()
	if err != nil {
		return err
	}
	if _, err := s.shim.Create(ctx, r); err != nil {
		return err
	}
	if _, err := s.shim.Task.Start(ctx, &taskapi.StartRequest{ID: s.id}); err != nil {
		return err
	}
	if err := s.shim.Exec(ctx, &taskapi.ExecProcessRequest{ID: s.id, ExecID: "e", Spec: execSpec("true")}); err != nil {
		return err
	}
	if _, err := s.shim.Task.Start(ctx, &taskapi.StartRequest{ID: s.id, ExecID: "e"}); err != nil {
		return err
	}
	if w, err := s.shim.Wait(ctx, &taskapi.WaitRequest{ID: s.id, ExecID: "e"}); err != nil || w.ExitStatus != 0 {
		return fmt.Errorf("exec: %v: %w", w, err)
	}
	if _, err := s.shim.Delete(ctx, &taskapi.DeleteRequest{ID: s.id, ExecID: "e"}); err != nil {
		return err
	}
	if err := s.shim.Kill(ctx, &taskapi.KillRequest{ID: s.id, Signal: 15}); err != nil {
		return err
	}
	w, err := s.shim.Wait(ctx, &taskapi.WaitRequest{ID: s.id})
	if err != nil {
		return err
	}
	if w.ExitStatus != 7 {
		return fmt.Errorf("init ended with %d", w.ExitStatus)
	}
	_, err = s.shim.Delete(ctx, &taskapi.DeleteRequest{ID: s.id})
	return err
}

// delete runs the shim's `delete`, as containerd does.
func (s *stage) delete(env ...string) (*taskapi.DeleteResponse, error) {
	s.t.Helper()
	address := filepath.Join(s.home.Dir, "containerd.sock")
	cmd := exec.Command(s.cfg.Binary, "-namespace", namespace, "-address", address, "-publish-binary", "/bin/true",
		"-id", s.id, "-bundle", s.bundle.Path, "delete")
	cmd.Dir = s.bundle.Path
	cmd.Env = append(os.Environ(), "TTRPC_ADDRESS="+s.cfg.Sink.Address(), failpoint.Env+"=")
	cmd.Env = append(cmd.Env, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr.String())
	}
	if stderr.Len() > 0 {
		s.t.Logf("delete says: %s", stderr.String())
	}
	r := &taskapi.DeleteResponse{}
	return r, proto.Unmarshal(stdout.Bytes(), r)
}

// deleteTwice runs `delete` twice and holds the answers against what is known.
func (s *stage) deleteTwice() {
	s.t.Helper()
	want := uint32(137)
	if b, err := os.ReadFile(filepath.Join(s.bundle.Path, "exit.json")); err == nil && bytes.Contains(b, []byte(`"Status":7`)) {
		want = 7
	}
	first, err := s.delete()
	if err != nil {
		s.t.Errorf("delete: %v", err)
		return
	}
	if first.ExitStatus != want || first.ExitedAt.AsTime().Year() < 2000 {
		s.t.Errorf("delete answered %v, want status %d", first, want)
	}
	s.nothingLeft("after delete")
	second, err := s.delete()
	if err != nil || !proto.Equal(first, second) {
		s.t.Errorf("the second delete answered %v, %v; the first %v", second, err, first)
	}
	s.nothingLeft("after the second delete")
}

// nothingLeft looks for all that a container may leave: processes, mounts, cgroups, the
// socket, the runtime's state.
func (s *stage) nothingLeft(when string) {
	s.t.Helper()
	var left []string
	until(s.t, when+": something is left", func() bool { left = s.left(); return len(left) == 0 })
	if len(left) > 0 {
		s.t.Errorf("left: %s", strings.Join(left, "; "))
	}
}

// until polls what no event tells of: what was killed takes its time to vanish.
func until(t *testing.T, complaint string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error(complaint)
			return
		}
	}
}

func (s *stage) left() (left []string) {
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/lark-test/" + s.id)
	more, _ := filepath.Glob("/sys/fs/cgroup/lark-test/" + s.id)
	state, _ := filepath.Glob(filepath.Join(s.home.RuntimeRoot(), namespace, "*"))
	left = append(append(groups, more...), state...)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], s.home.Dir+"/") {
			left = append(left, "mount "+f[4])
		}
	}
	entries, err := os.ReadDir(s.home.Dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type()&os.ModeSocket != 0 && filepath.Join(s.home.Dir, e.Name()) != s.cfg.Sink.Address() {
			left = append(left, "socket "+e.Name())
		}
	}
	if b, err := os.ReadFile(filepath.Join(s.bundle.Path, "address")); err == nil {
		if path := strings.TrimPrefix(string(b), "unix://"); exists(path) {
			left = append(left, "socket "+path)
		}
	}
	return append(left, s.processes()...)
}

// processes finds those that have the container's name in their command line or
// environment, or work in its bundle.
func (s *stage) processes() (found []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if filepath.Base(dir) == strconv.Itoa(os.Getpid()) {
			continue
		}
		line, _ := os.ReadFile(dir + "/cmdline")
		env, _ := os.ReadFile(dir + "/environ")
		cwd, _ := os.Readlink(dir + "/cwd")
		if bytes.Contains(line, []byte(s.id)) || bytes.Contains(env, []byte(s.id)) || strings.HasPrefix(cwd, s.bundle.Path) {
			found = append(found, fmt.Sprintf("process %s %q in %s", filepath.Base(dir), line, cwd))
		}
	}
	return found
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
