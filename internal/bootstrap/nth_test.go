package bootstrap

// The N-th system call of each command fails, for all N: rows 46 to 48. The commands are
// processes, as containerd runs them, each under supervision (package nth) from before its
// main.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/nth"
	"github.com/larkshim/lark/internal/taskapi"
)

const (
	// roleEnv says which of the commands is under supervision: its name, or "serve".
	roleEnv = "LARK_TEST_WATCHED"
	// interrupted is how far apart the calls are that are interrupted in one process:
	// nobody is to notice, so that one will do for many.
	interrupted = 5
	// nthPatience bounds what must come to an end.
	nthPatience = time.Minute
	// sizePatience bounds the wait for a server to become as small as it was.
	sizePatience = time.Minute
)

// joinSupervisor puts this process under supervision if it is the one that is meant.
func joinSupervisor() {
	role := os.Args[len(os.Args)-1]
	if role != "start" && role != "delete" {
		role = "serve"
	}
	if os.Getenv(roleEnv) != role {
		return
	}
	if _, err := nth.Join(); err != nil {
		panic(err)
	}
}

// fault is what is to fail in one life of a process.
type fault struct {
	nth.Fault
	s    *nth.Supervisor
	role string
}

// arm lets it happen to the commands of a daemon that are run from now on.
func (f fault) arm(d *daemon) {
	d.env = []string{f.s.Env(), roleEnv + "=" + f.role}
	f.s.Arm(f.Fault)
}

// everyCall lives a life with each fault, and one without before.
func everyCall(t *testing.T, role string, least map[unix.Errno]int, life func(*testing.T, fault) nth.Report) {
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else each process takes a second to exit under -race
	s := nth.Supervise(t)
	s.Most = 3
	// Of every process there is, and of every hierarchy of cgroups.
	s.Alike = regexp.MustCompile("^[a-z0-9]+ (?P<each>/proc/[0-9]+/task/[0-9]+|/proc/[0-9]+|/sys/fs/cgroup/[a-z_,]+)(/|$)")
	lives := 0
	one := func(t *testing.T, f nth.Fault) (faults int, told error) {
		lives++
		t.Run(strconv.Itoa(f.N), func(t *testing.T) { faults = life(t, fault{f, s, role}).Faults })
		if joined := s.Joined(); joined != lives {
			t.Fatalf("%d processes joined in %d lives", joined, lives)
		}
		return faults, nil
	}
	one(t, nth.Fault{})
	nth.All(t, interrupted, least, one)
}

// told fails the test unless an error may be told of the fault: of EINTR none, and of the
// others one that says what it was.
func (f fault) told(t *testing.T, r nth.Report, said string) {
	t.Helper()
	tells := strings.Contains(said, f.Errno.Error())
	if nth.IsWorld(f.Errno) {
		tells = said != "" // each call has its own
	}
	if r.Faults == 0 || f.Errno == unix.EINTR || !tells {
		t.Errorf("%d faults, %s of %s: told was %q", r.Faults, nth.Name(f.Errno), r.Failed, said)
	}
}

// The whole answer and a shim, or an error and nothing.
func TestRow46to48FailTheNthCallOfStart(t *testing.T) {
	least := map[unix.Errno]int{unix.EMFILE: 7, unix.ENOSPC: 5, unix.EAGAIN: 1, unix.EIO: 20, unix.EINTR: 15, nth.World: 12}
	everyCall(t, "start", least, func(t *testing.T, f fault) nth.Report {
		d := newDaemon(t)
		c := d.container("c1")
		path := strings.TrimPrefix(c.address(d.sockets(), "c1"), "unix://")
		f.arm(d)
		out, err := c.run(c.params(), "start")
		r := f.s.Disarm()
		d.env = nil
		if err == nil {
			if a := parse(t, out); a.Address != "unix://"+path {
				t.Errorf("%s: answer %+v", r.Failed, a)
			}
			connect(t, path).shutdown()
		} else {
			f.told(t, r, out)
		}
		if n := shims(t, d.grpc); n > 0 {
			t.Errorf("%s of %s: %d shims are left", nth.Name(f.Errno), r.Failed, n)
		}
		c.nothingLeft(t, r, path)
		c.start(c.params())
		connect(t, path).shutdown()
		return r
	})
}

// nothingLeft looks for a socket and for half-written files.
func (c *container) nothingLeft(t *testing.T, r nth.Report, socket string) {
	t.Helper()
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: the socket is left: %v", r.Failed, err)
	}
	entries, err := os.ReadDir(c.bundle)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s: %s is left in the bundle", r.Failed, e.Name())
		}
	}
}

// size is how many descriptors and goroutines a server has that was called once.
type size struct{ descriptors, goroutines int }

// It serves, or it dies and says why; calls that it takes are answered, its end is orderly
// and in the end nothing is left open or running of what has failed.
func TestRow46to48FailTheNthCallOfServe(t *testing.T) {
	least := map[unix.Errno]int{unix.EMFILE: 9, unix.EIO: 7, unix.EINTR: 15, nth.World: 10} // it writes no file, and forks nothing
	var usual size
	everyCall(t, "serve", least, func(t *testing.T, f fault) nth.Report {
		d := newDaemon(t)
		c := d.container("c1")
		log := c.openReader()
		defer log.Close()
		path := strings.TrimPrefix(c.address(d.sockets(), "c1"), "unix://")
		f.arm(d)
		c.start(c.params())
		pid := c.firstCall(path)
		if pid == 0 { // it could not serve
			f.awaitNone(t, d)
		} else {
			now := lookAt(t, path, pid, usual)
			if f.N == 0 {
				usual = now
			} else if f.s.Report().Faults > 0 && now.exceeds(usual) {
				t.Errorf("%s of %s: has %+v, usual are %+v", nth.Name(f.Errno), f.s.Report().Failed, now, usual)
			}
			connect(t, path).shutdown()
			if events := d.got(); events != "/tasks/exit /tasks/closed" {
				t.Errorf("%s of %s: events %q", nth.Name(f.Errno), f.s.Report().Failed, events)
			}
		}
		r := f.s.Disarm()
		d.env = nil
		// A socket that was not there when it was looked for is left without a word.
		if _, err := os.Lstat(path); err == nil && !nth.IsWorld(f.Errno) || pid == 0 {
			f.told(t, r, logged(log)) // a socket that is left the next start replaces
		}
		c.start(c.params())
		connect(t, path).shutdown()
		c.nothingLeft(t, r, path)
		return r
	})
}

// firstCall is containerd's, just after start; it returns the server's pid, 0 if there is
// no server any more.
func (c *container) firstCall(path string) int {
	c.t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		return 0
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), nthPatience)
	defer cancel()
	var resp task.ConnectResponse
	if err := client.Call(ctx, taskapi.V2, "Connect", &task.ConnectRequest{ID: "c1"}, &resp); err != nil {
		if ctx.Err() != nil {
			c.t.Errorf("the first call was not answered: %v", err)
		}
		return 0
	}
	return int(resp.ShimPid)
}

// awaitNone waits until no server of the daemon is left.
func (f fault) awaitNone(t *testing.T, d *daemon) {
	t.Helper()
	for end := time.Now().Add(nthPatience); shims(t, d.grpc) > 0; <-time.After(answerPoll) {
		if time.Now().After(end) {
			t.Fatalf("%s of %s: a shim that does not serve is there", nth.Name(f.Errno), f.s.Report().Failed)
		}
	}
}

func (s size) exceeds(usual size) bool {
	return s.descriptors > usual.descriptors || s.goroutines > usual.goroutines
}

// lookAt takes down what the server has, with one client, once that is no more than usual;
// the connection of the first client may take a moment to go.
func lookAt(t *testing.T, path string, pid int, usual size) (now size) {
	t.Helper()
	shim := connect(t, path)
	for end := time.Now().Add(sizePatience); ; <-time.After(answerPoll) {
		_, now.goroutines, _, _ = shim.measure()
		open, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		was := now.descriptors
		now.descriptors = len(open)
		settled := !now.exceeds(usual)
		if usual == (size{}) {
			settled = was == now.descriptors
		}
		if settled || time.Now().After(end) {
			return now
		}
	}
}

// logged is what was written to the log until now.
func logged(log *os.File) string {
	_ = log.SetReadDeadline(time.Now().Add(answerGrace))
	var text bytes.Buffer
	_, _ = text.ReadFrom(log)
	return text.String()
}

// What delete leaves, it tells; and the next one finds it.
func TestRow46to48FailTheNthCallOfDelete(t *testing.T) {
	least := map[unix.Errno]int{unix.EMFILE: 35, unix.ENOSPC: 3, unix.EAGAIN: 2, unix.EIO: 80, unix.EINTR: 70, nth.World: 40}
	everyCall(t, "delete", least, func(t *testing.T, f fault) nth.Report {
		d := newDaemon(t)
		w := newWreck(t, d)
		f.arm(d)
		first, said, failed := w.delete()
		r := f.s.Disarm()
		d.env = nil
		left := w.left()
		switch {
		case tooSlow(said): // the machine is: that says nothing of the fault
		case failed != nil:
			f.told(t, r, said)
		case said != "":
			f.told(t, r, said)
		case len(left) > 0 && !nth.IsWorld(f.Errno): // else it was not there when it was looked for
			t.Errorf("%s of %s: left without a word: %q", nth.Name(f.Errno), r.Failed, left)
		}
		want := uint32(4242)
		notRead := strings.Contains(said, "pid is not known") || nth.IsWorld(f.Errno) && strings.Contains(r.Failed, "init.pid")
		if failed == nil && notRead {
			want = 0 // that answer stands
		}
		second, said, failed := w.delete()
		for tries := 0; tooSlow(said) && tries < 10; tries++ {
			second, said, failed = w.delete()
		}
		if failed != nil || said != "" || second.Pid != want || second.ExitStatus != killed {
			t.Errorf("%s of %s: the second delete: %v, the first %v, %v, %s", nth.Name(f.Errno), r.Failed, second, first, failed, said)
		}
		if left := w.left(); len(left) > 0 {
			t.Errorf("%s of %s: left by the second delete: %q", nth.Name(f.Errno), r.Failed, left)
		}
		w.c.nothingLeft(t, r, w.socket)
		return r
	})
}

// wreck is what a shim that was killed leaves of a container of which its runtime knows
// nothing.
type wreck struct {
	t       *testing.T
	c       *container
	b       *bundle.Bundle
	socket  string
	groups  []string
	process *exec.Cmd
}

func newWreck(t *testing.T, d *daemon) *wreck {
	t.Helper()
	w := &wreck{t: t, c: d.container("c1"), socket: filepath.Join(d.sockets(), "gone")}
	name := "/lark-test/" + filepath.Base(d.dir)
	put(t, filepath.Join(w.c.bundle, "config.json"), fmt.Sprintf(`{"linux":{"cgroupsPath":%q}}`, name))
	var err error
	if w.b, err = bundle.Open(w.c.bundle); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.b.Close() })
	w.socket = strings.TrimPrefix(w.c.address(d.sockets(), "c1"), "unix://")
	dir, err := openSocketDir(d.sockets())
	if err != nil {
		t.Fatal(err)
	}
	dir.close()
	socket, err := listen(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	socket.Close()
	put(t, w.b.PIDPath(bundle.ExecID{}), "4242")
	err = errors.Join(w.b.WriteSocketDir(d.sockets()), w.b.WriteOptions(&options.Options{BinaryName: runtimeScript(t, "exit 0\n"), Root: filepath.Join(d.dir, "r")}),
		os.MkdirAll(filepath.Join(d.dir, "r/ns/c1"), 0o700), os.Mkdir(w.b.Rootfs(), 0o700), unix.Mount("tmpfs", w.b.Rootfs(), "tmpfs", 0, "size=4k"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(w.b.Rootfs(), unix.MNT_DETACH) })
	w.live(name)
	return w
}

// live starts a process in the container's cgroup.
func (w *wreck) live(name string) {
	w.t.Helper()
	w.process = exec.Command("sleep", "1000")
	if err := w.process.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = w.process.Wait() }()
	w.t.Cleanup(func() { _ = w.process.Process.Kill(); <-ended })
	for _, h := range []string{"pids", "freezer", "unified", "."} {
		dir := filepath.Join("/sys/fs/cgroup", h)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		dir = filepath.Join(dir, name)
		err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(w.process.Process.Pid)), 0))
		if err != nil {
			w.t.Fatal(err)
		}
		w.groups = append(w.groups, dir)
	}
	if len(w.groups) == 0 {
		w.t.Fatal("no cgroup can be made")
	}
}

// delete runs the command and returns its answer, if it is whole, and its standard error.
func (w *wreck) delete() (answer *task.DeleteResponse, said string, err error) {
	cmd := w.c.command("-bundle", w.c.bundle, "delete")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	answer = &task.DeleteResponse{}
	if perr := proto.Unmarshal(stdout.Bytes(), answer); err == nil && (perr != nil || stdout.Len() == 0) {
		w.t.Errorf("answer %q: %v", stdout.Bytes(), perr)
	}
	return answer, stderr.String(), err
}

// left is what there is still.
func (w *wreck) left() (left []string) {
	paths := append(slices.Clone(w.groups), w.socket, filepath.Join(w.c.dir, "r/ns/c1"))
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			left = append(left, path)
		}
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(table), w.c.bundle) {
		left = append(left, fmt.Sprintf("a mount (%v)", err))
	}
	return left
}
