package bootstrap

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/taskapi"
)

func legacyOptions(t testing.TB) []byte {
	t.Helper()
	value, err := proto.Marshal(&options.Options{BinaryName: "runc"})
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.Marshal(&anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: value})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// address computes the socket as containerd's tests do.
func (c *container) address(dir, group string) string {
	return fmt.Sprintf("unix://%s/%x", dir, sha256.Sum256([]byte(filepath.Join(c.grpc, "ns", group))))
}

// parse reads an answer as containerd 1.7 and 2.x do, which take 2 at least for JSON.
func parse(t testing.TB, out string) answer {
	t.Helper()
	var a answer
	if err := json.Unmarshal([]byte(out), &a); err != nil || a.Version < 2 {
		t.Fatalf("answer %q: %v", out, err)
	}
	return a
}

// Every generation of containerd gets the answer it can read, and a shim that it can
// call.
func TestStartForEachGeneration(t *testing.T) {
	for name, c := range map[string]struct {
		plainly bool
		stdin   func(*container) []byte
		version int // 0: a plain address
		dir     string
		record  bool // the address file
	}{
		"1.6":                   {true, func(*container) []byte { return nil }, 0, defaultSocketDir, true},
		"1.6 with options":      {true, func(*container) []byte { return legacyOptions(t) }, 0, defaultSocketDir, true},
		"1.7 or 2.0":            {false, func(*container) []byte { return nil }, 2, defaultSocketDir, true},
		"1.7, 2.0 with options": {false, func(*container) []byte { return legacyOptions(t) }, 2, defaultSocketDir, true},
		"2.3":                   {false, func(c *container) []byte { return c.params() }, 3, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			d.plainly = c.plainly
			ct := d.container("c1")
			out := ct.start(c.stdin(ct))
			dir := c.dir
			if dir == "" {
				dir = d.sockets()
			}
			want := ct.address(dir, "c1")
			if c.version == 0 {
				if out != want {
					t.Errorf("answer %q, want %q", out, want)
				}
			} else if a := parse(t, out); a != (answer{Version: c.version, Address: want, Protocol: "ttrpc"}) {
				t.Errorf("answer %+v", a)
			}
			kept, err := os.ReadFile(filepath.Join(ct.bundle, "address"))
			if c.record && string(kept) != want || !c.record && err == nil {
				t.Errorf("address file %q, %v", kept, err)
			}
			shim := connect(t, strings.TrimPrefix(want, "unix://"))
			checkServer(t, ct, shim)
			shim.shutdown()
			if _, err := os.Lstat(shim.path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
			if d.got() != "/tasks/exit /tasks/closed" { // W7
				t.Errorf("events %q", d.got())
			}
		})
	}
}

func checkServer(t *testing.T, c *container, shim *running) {
	t.Helper()
	st, err := os.Lstat(shim.path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", st, err)
	}
	if pgid, err := strconv.Atoi(strings.Fields(procField(t, shim.pid, "stat", ""))[4]); err != nil || pgid != shim.pid {
		t.Errorf("process group %d of %d", pgid, shim.pid)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", shim.pid)); err != nil || cwd != c.bundle {
		t.Errorf("working directory %q, %v", cwd, err)
	}
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", shim.pid))
	want := "containerd-shim-lark-v2\x00-namespace\x00ns\x00-id\x00c1\x00-address\x00" + c.grpc + "\x00"
	if err != nil || string(args) != want {
		t.Errorf("command line %q, %v", args, err)
	}
	if umask := procField(t, shim.pid, "status", "Umask:"); umask != "0022" {
		t.Errorf("umask %s", umask)
	}
	score := func(pid int) int {
		n, err := strconv.Atoi(procField(t, pid, "oom_score_adj", ""))
		if err != nil {
			t.Error(err)
		}
		return n
	}
	if got, want := score(shim.pid), min(score(os.Getpid())+1, 1000); got != want {
		t.Errorf("OOM score %d, want %d", got, want)
	}
	for _, name := range []string{taskapi.V2, taskapi.V3} {
		if err := shim.Call(t.Context(), name, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The containers of a group share a shim, whichever annotation says so.
func TestStartJoinsTheGroup(t *testing.T) {
	for _, key := range groupAnnotations {
		t.Run(key, func(t *testing.T) {
			d := newDaemon(t)
			first := d.container("c1", key, "c1")
			second := d.container("c2", key, "c1")
			a := parse(t, first.start(first.params()))
			shim := connect(t, strings.TrimPrefix(a.Address, "unix://"))
			if b := parse(t, second.start(second.params())); b != a {
				t.Errorf("the second container got %+v, the first %+v", b, a)
			}
			l := parse(t, second.start(legacyOptions(t))) // in another directory
			if l.Address == a.Address {
				t.Errorf("with another socket directory: %+v", l)
			}
			connect(t, strings.TrimPrefix(l.Address, "unix://")).shutdown()
			shim.shutdown()
		})
	}
}

// Row 62: of starts for one group at the same time one makes the shim.
func TestRow62ConcurrentStarts(t *testing.T) {
	d := newDaemon(t)
	const n = 8
	answers := make([]answer, n)
	var wg sync.WaitGroup
	for i := range n {
		c := d.container(fmt.Sprint("c", i), groupAnnotations[0], "g")
		wg.Go(func() {
			out, err := c.run(c.params(), "start")
			if err != nil {
				t.Errorf("start: %v: %s", err, out)
				return
			}
			answers[i] = parse(t, out)
		})
	}
	wg.Wait()
	for _, a := range answers {
		if a != answers[0] {
			t.Errorf("answers %+v and %+v", a, answers[0])
		}
	}
	shim := connect(t, strings.TrimPrefix(answers[0].Address, "unix://"))
	if got := shims(t, d.grpc); got != 1 {
		t.Errorf("%d shims were started", got)
	}
	shim.shutdown()
}

// shims counts the serving processes of a daemon.
func shims(t testing.TB, grpc string) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if data, err := os.ReadFile(file); err == nil && bytes.HasSuffix(data, []byte("-address\x00"+grpc+"\x00")) {
			n++
		}
	}
	return n
}

// Row 61: a socket that a dead shim has left is replaced.
func TestRow61StartReplacesAStaleSocket(t *testing.T) {
	d := newDaemon(t)
	c := d.container("c1")
	a := parse(t, c.start(c.params()))
	path := strings.TrimPrefix(a.Address, "unix://")
	old := connect(t, path)
	old.signal(9)
	old.ended()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("a killed shim leaves its socket: %v", err)
	}
	if b := parse(t, c.start(c.params())); b != a {
		t.Errorf("answer %+v", b)
	}
	shim := connect(t, path)
	if shim.pid == old.pid {
		t.Error("the dead shim answers")
	}
	shim.shutdown()
}

// older is a shim that serves what it is told to, at the group's socket.
func older(t *testing.T, path string, services ...string) {
	t.Helper()
	dir, err := openSocketDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	dir.close()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if services == nil { // it hangs
		t.Cleanup(func() { l.Close() })
		return
	}
	srv, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range services {
		srv.RegisterService(name, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
			"Connect": func(context.Context, func(any) error) (any, error) { return nil, errdefs.ErrNotFound },
		}})
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(context.Background(), l) }()
	t.Cleanup(func() { srv.Close(); <-ended })
}

// containerd 10888: who joins a running shim is told what that one speaks.
func TestStartTellsWhatTheRunningShimSpeaks(t *testing.T) {
	for name, c := range map[string]struct {
		services   []string
		record     string // bootstrap.json of the group's first container
		params     bool
		want       int
		recordFile string
	}{
		"2.3 joins a shim of 1.7":         {[]string{taskapi.V2}, "", true, 2, ""},
		"2.3 joins a shim of 2.0":         {[]string{taskapi.V3}, "", true, 3, ""},
		"2.3 joins one with both":         {[]string{taskapi.V2, taskapi.V3}, "", true, 3, ""},
		"2.0 joins a shim of 2.0":         {[]string{taskapi.V3}, "", false, 3, ""},
		"1.7 joins a shim of 1.7":         {[]string{taskapi.V2}, "", false, 2, ""},
		"1.7 joins one with both":         {[]string{taskapi.V2, taskapi.V3}, "", false, 2, ""},
		"hung, version 2 on record":       {nil, `{"version":2,"address":"ADDRESS","protocol":"ttrpc"}`, true, 2, "bootstrap.json"},
		"hung, version 3 on record":       {nil, `{"version":3,"address":"ADDRESS","protocol":"ttrpc"}`, false, 3, "bootstrap.json"},
		"hung, an address on record":      {nil, "ADDRESS", true, 2, "address"},
		"hung, another shim's on record":  {nil, `{"version":2,"address":"unix:///x","protocol":"ttrpc"}`, true, 3, "bootstrap.json"},
		"hung, nothing on record for 2.0": {nil, "", false, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			first := d.container("c1")
			second := d.container("c2", groupAnnotations[1], "c1")
			dir, stdin := d.sockets(), second.params()
			if !c.params {
				dir, stdin = defaultSocketDir, legacyOptions(t)
			}
			address := first.address(dir, "c1")
			older(t, strings.TrimPrefix(address, "unix://"), c.services...)
			if c.recordFile != "" {
				content := strings.ReplaceAll(c.record, "ADDRESS", address)
				if err := os.WriteFile(filepath.Join(first.bundle, c.recordFile), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if a := parse(t, second.start(stdin)); a != (answer{c.want, address, "ttrpc"}) {
				t.Errorf("answer %+v, want version %d", a, c.want)
			}
		})
	}
}

// Whatever comes in, either a whole answer is printed or none, and nothing is left.
func TestRow63StartRefuses(t *testing.T) {
	noSpec := func(c *container) { os.Remove(filepath.Join(c.bundle, "config.json")) }
	params := func(c *container) []byte { return c.params() }
	for name, c := range map[string]struct {
		stdin  func(*container) []byte
		spoil  func(*container)
		stderr string
	}{
		"garbage":           {func(*container) []byte { return []byte("garbage") }, nil, "invalid argument"},
		"too much":          {func(*container) []byte { return make([]byte, maxInput+1) }, nil, "more than"},
		"unknown options":   {func(*container) []byte { b, _ := proto.Marshal(&anypb.Any{TypeUrl: "x.Y"}); return b }, nil, `"x.Y"`},
		"another container": {func(c *container) []byte { d := *c; d.id = "c9"; return d.params() }, nil, "invalid argument"},
		"no spec":           {params, noSpec, "config.json"},
		"socket directory":  {params, func(c *container) { os.WriteFile(c.sockets(), nil, 0o600) }, "socket directory"},
		"a group that climbs": {params, func(c *container) {
			os.WriteFile(filepath.Join(c.bundle, "config.json"), []byte(`{"annotations":{"io.containerd.runc.v2.group":"../other/c"}}`), 0o600)
		}, "annotation"},
		"shim cgroup": {func(c *container) []byte {
			value, _ := proto.Marshal(&options.Options{ShimCgroup: "/no/such/cgroup"})
			b, _ := proto.Marshal(&anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: value})
			return b
		}, nil, "cgroup"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			ct := d.container("c1")
			if c.spoil != nil {
				c.spoil(ct)
			}
			cmd := ct.command("start")
			cmd.Stdin = bytes.NewReader(c.stdin(ct))
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err == nil || stdout.Len() > 0 || !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("start: %v, stdout %q, stderr %q", err, &stdout, &stderr)
			}
			if n := shims(t, d.grpc); n != 0 {
				t.Errorf("%d shims were left", n)
			}
			for _, dir := range []string{d.sockets(), defaultSocketDir} {
				if _, err := os.Lstat(strings.TrimPrefix(ct.address(dir, "c1"), "unix://")); err == nil {
					t.Errorf("a socket was left in %s", dir)
				}
			}
		})
	}
}

// A daemon that is gone before it reads the answer leaves no shim behind.
func TestStartWithNobodyToAnswer(t *testing.T) {
	d := newDaemon(t)
	c := d.container("c1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd := c.command("start")
	cmd.Stdin, cmd.Stdout = bytes.NewReader(c.params()), w
	if err := cmd.Run(); err == nil {
		t.Error("start succeeded")
	}
	// It died of SIGPIPE or said why; either way no process may stay that would serve
	// for ever.
	if n := shims(t, d.grpc); n != 0 {
		t.Errorf("%d shims were left", n)
	}
}

func TestRow63ReadInputIsBounded(t *testing.T) { // row 63
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		defer w.Close()
		begun := time.Now()
		if _, err := readInput(r, 10, inputTimeout); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != inputTimeout {
			t.Errorf("input that never ends: %v after %v", err, time.Since(begun))
		}
	})
	if data, err := readInput(strings.NewReader("0123456789"), 10, time.Minute); err != nil || len(data) != 10 {
		t.Errorf("at the limit: %q, %v", data, err)
	}
	if _, err := readInput(strings.NewReader("0123456789a"), 10, time.Minute); !errdefs.IsInvalidArgument(err) {
		t.Errorf("above the limit: %v", err)
	}
}

func TestKernelNotBefore(t *testing.T) {
	for release, ok := range map[string]bool{"5.4.0-1-amd64": true, "5.3.9": false, "4.19.0": false, "6.18": true, "6.0-rc1": true, "10.1": true, "5": true, "strange": true} {
		if err := kernelNotBefore(release, 5, 4); (err == nil) != ok {
			t.Errorf("%s: %v", release, err)
		}
	}
}

func TestGroupOf(t *testing.T) {
	id, err := bundle.ParseContainerID("c1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		annotations map[string]string
		want        string // "": refused
	}{
		{nil, "c1"},
		{map[string]string{groupAnnotations[1]: "pod"}, "pod"},
		{map[string]string{groupAnnotations[1]: "pod", groupAnnotations[0]: "g"}, "g"},
		{map[string]string{groupAnnotations[0]: ""}, "c1"},
		{map[string]string{groupAnnotations[0]: "a/b"}, "a/b"},
		{map[string]string{groupAnnotations[0]: "../x"}, ""},
		{map[string]string{groupAnnotations[0]: "a/../../x"}, ""},
		{map[string]string{groupAnnotations[0]: "/x"}, ""},
		{map[string]string{groupAnnotations[0]: "."}, ""},
		{map[string]string{groupAnnotations[0]: "a\x00"}, ""},
	} {
		if got, err := groupOf(c.annotations, id); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%v: %q, %v", c.annotations, got, err)
		}
	}
}

func TestRow49OOMScore(t *testing.T) {
	proc := t.TempDir()
	put := func(pid, content string) {
		if err := errors.Join(os.MkdirAll(filepath.Join(proc, pid), 0o700), os.WriteFile(filepath.Join(proc, pid, "oom_score_adj"), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for containerd, want := range map[string]string{"-999\n": "-998", "0\n": "1", "1000\n": "1000"} {
		put("1", containerd)
		put("2", "")
		if err := adjustOOMScore(proc, 1, 2); err != nil {
			t.Error(err)
		}
		if got, _ := os.ReadFile(filepath.Join(proc, "2", "oom_score_adj")); string(got) != want {
			t.Errorf("containerd %q: shim %q, want %q", containerd, got, want)
		}
	}
	if err := adjustOOMScore(proc, 77, 2); err != nil {
		t.Errorf("containerd is gone: %v", err)
	}
}

func FuzzBootstrapStdin(f *testing.F) {
	d := &daemon{t: f, dir: "/tmp/x", grpc: "/run/c.sock"}
	c := &container{daemon: d, id: "c1", bundle: "/tmp/x/c1"}
	f.Add([]byte(nil))
	f.Add(c.params())
	f.Add(c.params()[:20])
	f.Add(legacyOptions(f))
	f.Add([]byte("{\"instance_id\":\"c1\"}"))
	f.Add([]byte{0xff, 0xff, 0xff})
	ns, err1 := bundle.ParseNamespace("ns")
	id, err2 := bundle.ParseContainerID("c1")
	if err1 != nil || err2 != nil {
		f.Fatal(err1, err2)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		for _, hasMax := range []bool{false, true} {
			r, err := parseRequest(input, ns, id, "/a", hasMax)
			switch {
			case err != nil && !errdefs.IsInvalidArgument(err):
				t.Errorf("an untyped error: %v", err)
			case err == nil && (r == nil || r.options == nil):
				t.Errorf("request %+v", r)
			case err == nil && r.dialect != bootstrap && (r.grpcAddress != "/a" || r.dialect == legacy != hasMax):
				t.Errorf("request %+v", r)
			}
		}
	})
}
