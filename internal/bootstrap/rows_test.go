package bootstrap

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/taskapi"
)

func callConnect(ctx context.Context, c *ttrpc.Client) error {
	return errgrpc.ToNative(c.Call(ctx, taskapi.V2, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}))
}

// Row 4: a call that is meant for another namespace is refused; one that does not say
// is taken.
func TestRow04NamespaceOfCalls(t *testing.T) {
	_, _, path, _ := serveQuick(t)
	c := dialQuick(t, path)
	in := func(ns string) context.Context {
		return ttrpc.WithMetadata(t.Context(), ttrpc.MD{namespaceHeader: {ns}})
	}
	if err := callConnect(t.Context(), c); err != nil {
		t.Errorf("no namespace: %v", err)
	}
	if err := callConnect(in("ns"), c); err != nil {
		t.Errorf("the shim's namespace: %v", err)
	}
	for _, ns := range []string{"", "other", "ns2", "NS", strings.Repeat("n", 1<<20)} {
		if err := callConnect(in(ns), c); !errdefs.IsFailedPrecondition(err) || len(err.Error()) > 1<<10 {
			t.Errorf("namespace %.10q: %.200v, want FailedPrecondition", ns, err)
		}
	}
}

// Row 4: without a namespace, or with parameters that name another, nothing is started
// and nothing deleted.
func TestRow04NamespaceOfCommands(t *testing.T) {
	d := newDaemon(t)
	c := d.container("c1")
	params := c.params()
	for name, x := range map[string]struct {
		args  []string
		stdin []byte
	}{
		"start without":            {[]string{"-namespace", "", "start"}, params},
		"start with a bad one":     {[]string{"-namespace", "../ns", "start"}, params},
		"start, parameters differ": {[]string{"-namespace", "other", "start"}, params},
		"delete without":           {[]string{"-namespace", "", "delete"}, nil},
		"serve without":            {[]string{"-namespace", ""}, nil},
	} {
		if out, err := c.run(x.stdin, x.args...); err == nil {
			t.Errorf("%s: %s", name, out)
		}
	}
	if n := shims(t, d.grpc); n != 0 {
		t.Errorf("%d shims were started", n)
	}
}

// Row 8: a field that a later containerd adds is passed over, a method or a service
// that it adds is said not to be implemented.
func TestRow08UnknownFieldsAndMethods(t *testing.T) {
	_, _, path, _ := serveQuick(t)
	c := dialQuick(t, path)
	r := &task.ConnectRequest{ID: "c"}
	r.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 1023, protowire.BytesType), "future"))
	if err := c.Call(t.Context(), taskapi.V3, "Connect", r, &task.ConnectResponse{}); err != nil {
		t.Errorf("an unknown field: %v", err)
	}
	for _, x := range [][2]string{{taskapi.V3, "Fly"}, {"containerd.task.v9.Task", "Connect"}} {
		err := errgrpc.ToNative(c.Call(t.Context(), x[0], x[1], &task.ConnectRequest{}, &emptypb.Empty{}))
		if !errdefs.IsNotImplemented(err) {
			t.Errorf("%s/%s: %v, want NotImplemented", x[0], x[1], err)
		}
	}
}

// An error that cannot be sent as it is reaches the client all the same.
func TestUnsendableErrors(t *testing.T) {
	_, _, path, _ := serveQuick(t)
	c := dialQuick(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, kind := range []string{"not UTF-8", "long"} {
		err := c.Call(ctx, taskapi.V2, "Pause", &task.PauseRequest{ID: kind}, &emptypb.Empty{})
		if err = errgrpc.ToNative(err); !errdefs.IsNotFound(err) || len(err.Error()) > maxMessage+100 {
			t.Errorf("%s: %.100v", kind, err)
		}
	}
}

// Pause fails with an error of the kind that its request names.
func (q *quick) Pause(_ context.Context, r *task.PauseRequest) (*emptypb.Empty, error) {
	text := "a\xffb"
	if r.ID == "long" {
		text = strings.Repeat("é", 8<<20)
	}
	return nil, fmt.Errorf("%s: %w", text, errdefs.ErrNotFound)
}

// Row 64: peers that send a part of a message and no more hold up nobody, and closing
// the server ends them.
func TestRow64SlowLoris(t *testing.T) {
	_, s, path, _ := serveQuick(t)
	whole := callFrame(t, 1)
	for i := range 100 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(whole[:1+i%(len(whole)-1)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := callConnect(t.Context(), dialQuick(t, path)); err != nil {
		t.Errorf("another connection: %v", err)
	}
	if !await(s.idle, time.Minute) { // an answer is there before it is counted
		t.Error("half a request counts as one")
	}
}

// Row 65: a peer of another user gets nothing, which is logged once; our own goes on.
func TestRow65RefusedAndLoggedOnce(t *testing.T) {
	dir := openDir(t)
	_, _, path, log := serveQuickAt(t, dir+"/s")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		conn := os.NewFile(uintptr(fd), "stranger")
		asStranger(t, func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
		_, _ = conn.Write(callFrame(t, 1)) // it may be closed by now
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("a stranger was answered: %d bytes, %v", n, err)
		}
		conn.Close()
	}
	if err := callConnect(t.Context(), dialQuick(t, path)); err != nil {
		t.Errorf("our own user: %v", err)
	}
	if n := strings.Count(log.String(), "connection refused"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log)
	}
}

// Row 49: the collector works harder long before the kernel would have to kill, unless
// the administrator has said otherwise.
func TestRow49MemoryLimit(t *testing.T) {
	for env, want := range map[string]int{"": memoryLimit >> 20, "GOMEMLIMIT=100MiB": 100} {
		d := newDaemon(t)
		if env != "" {
			d.env = []string{env}
		}
		shim := d.container("c1").serving()
		if _, _, limit, _ := shim.measure(); limit != want {
			t.Errorf("with %q the limit is %d MiB, want %d", env, limit, want)
		}
		shim.shutdown()
	}
}

// Row 64: calls that only wait have a bound too, and those that end something or look
// have none.
func TestRow64WaitsAreBounded(t *testing.T) {
	_, s, _, _ := serveQuick(t)
	for range maxConcurrent {
		if _, err := s.enter(nil, "Wait"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.enter(nil, "Wait"); !errdefs.IsResourceExhausted(err) {
		t.Errorf("one more: %v, want ResourceExhausted", err)
	}
	for _, name := range []string{"Kill", "Delete", "State", "Connect", "Pids", "Shutdown", "CloseIO", "Start"} {
		if _, err := s.enter(nil, name); err != nil {
			t.Errorf("%s meanwhile: %v", name, err)
		}
	}
}

// Row 52: containerd goes away in the middle of a call. The call runs to its end, and
// the containerd that comes back finds what it did.
func TestRow52CallOutlivesItsConnection(t *testing.T) {
	q, s, path, _ := serveQuick(t)
	gone := dialQuick(t, path)
	done := make(chan error, 1)
	go func() {
		done <- gone.Call(context.Background(), taskapi.V2, "Exec", &task.ExecProcessRequest{}, &emptypb.Empty{})
	}()
	<-q.entered
	gone.Close()
	if err := <-done; err == nil {
		t.Error("the client that went away was answered")
	}
	if err := callConnect(t.Context(), dialQuick(t, path)); err != nil {
		t.Errorf("the next connection: %v", err)
	}
	if n := s.work.Load(); n != 1 {
		t.Errorf("%d calls are running, want the one", n)
	}
	close(q.release)
	if !await(func() bool { return s.work.Load() == 0 }, time.Minute) {
		t.Error("the call did not come to its end")
	}
}

// Row 61: a pid on disk may be anybody's by now. The delete command repeats it in its
// answer and signals nobody by it.
func TestRow61StalePidIsNotSignalled(t *testing.T) {
	d := newDaemon(t)
	c := d.container("c1")
	stranger := exec.Command("sleep", "1000")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stranger.Process.Kill(); err != nil {
			t.Errorf("the stranger was ended: %v", err)
		}
		_ = stranger.Wait()
	}()
	b, err := bundle.Open(c.bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.WriteOptions(&options.Options{BinaryName: runtimeScript(t, "exit 0\n"), Root: filepath.Join(d.dir, "r")}); err != nil {
		t.Fatal(err)
	}
	put(t, b.PIDPath(bundle.ExecID{}), strconv.Itoa(stranger.Process.Pid))
	if err := os.MkdirAll(filepath.Join(d.dir, "r/ns"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := c.delete("-bundle", c.bundle); r.ExitStatus != 137 || int(r.Pid) != stranger.Process.Pid {
			t.Errorf("delete answered %v", r)
		}
	}
	if state := procField(t, stranger.Process.Pid, "status", "State:"); strings.HasPrefix(state, "Z") {
		t.Errorf("the stranger is %s", state)
	}
}

// What others have left beside the bundle is read up to a bound, and only if it is a
// file.
func TestRecordsOfOthersAreBounded(t *testing.T) {
	dir := t.TempDir()
	long, link := filepath.Join(dir, "long"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(long, make([]byte, maxRecord+1), 0o600), os.Symlink(long, link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{long, link, dir, filepath.Join(dir, "none")} {
		if data, err := readSmall(path); err == nil {
			t.Errorf("%s: %d bytes", path, len(data))
		}
	}
}

// Row 64: a hundred thousand starts on one connection, none of which waits for another.
// As many run as may, all others are answered, and the memory that they took is given
// back.
func TestRow64FloodOfStarts(t *testing.T) {
	const flood = 100_000 / underRace
	q, s, path, _ := serveQuick(t)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	payload, err := proto.Marshal(&ttrpc.Request{Service: taskapi.V3, Method: "Exec"})
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	sent := make(chan error, 1)
	go func() {
		for i := range uint32(flood) {
			if _, err := conn.Write(frame(uint32(len(payload)), 2*i+1, typeRequest, payload)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	in := bufio.NewReaderSize(conn, 64<<10)
	var answers uint64
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	count := func(want uint64) {
		t.Helper()
		for ; answers < want; answers++ {
			header := make([]byte, frameHeader)
			_, err := io.ReadFull(in, header)
			if err == nil {
				_, err = in.Discard(int(binary.BigEndian.Uint32(header)))
			}
			if err != nil || header[frameTypeByte] != typeResponse {
				t.Fatalf("%d answers of %d: %v", answers, want, err)
			}
		}
	}
	count(flood - maxWork)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if err := callConnect(t.Context(), dialQuick(t, path)); err != nil {
		t.Errorf("another connection meanwhile: %v", err)
	}
	if n := s.work.Load(); n != maxWork {
		t.Errorf("%d calls run, want %d", n, maxWork)
	}
	close(q.release)
	count(flood)
	if answers != flood {
		t.Errorf("%d answers to %d calls", answers, flood)
	}
	if grown := int64(heap()) - int64(before); grown > 8<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

// heap is how many bytes of it are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
