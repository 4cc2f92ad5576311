package bootstrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/bundle"
)

// steps is a remover that writes down what is asked of it.
type steps struct {
	done []string
	err  error // of every step
}

func (s *steps) deleteContainer(_ context.Context, o *options.Options) error {
	s.done = append(s.done, "delete "+o.BinaryName)
	return s.err
}

func (s *steps) killLeft(context.Context, *options.Options) error {
	s.done = append(s.done, "kill")
	return s.err
}

func (s *steps) unmount() error {
	s.done = append(s.done, "unmount")
	return s.err
}

func (s *steps) close() error { return nil }

func testBundle(t testing.TB) *bundle.Bundle {
	t.Helper()
	b, err := bundle.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func put(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCleanUp(t *testing.T) {
	at := time.Now().Add(-time.Hour).UTC()
	all := []string{"delete crun", "kill", "unmount"}
	for name, c := range map[string]struct {
		prepare func(*bundle.Bundle)
		fail    error
		steps   []string
		want    bundle.InitExit // At zero: now
	}{
		"never created":        {func(*bundle.Bundle) {}, nil, []string{"unmount"}, bundle.InitExit{Status: 137}},
		"exit on record":       {func(b *bundle.Bundle) { created(b); _ = b.WriteInitExit(bundle.InitExit{PID: 7, Status: 3, At: at}) }, nil, all, bundle.InitExit{PID: 7, Status: 3, At: at}},
		"pid on record":        {func(b *bundle.Bundle) { created(b); put(t, b.PIDPath(bundle.ExecID{}), "4242") }, nil, all, bundle.InitExit{PID: 4242, Status: 137}},
		"every step fails":     {func(b *bundle.Bundle) { created(b); put(t, b.PIDPath(bundle.ExecID{}), "4242") }, errors.New("no"), all, bundle.InitExit{PID: 4242, Status: 137}},
		"all gone already":     {func(b *bundle.Bundle) { created(b) }, errdefs.ErrNotFound, all, bundle.InitExit{Status: 137}},
		"damaged pid":          {func(b *bundle.Bundle) { created(b); put(t, b.PIDPath(bundle.ExecID{}), "-1") }, nil, all, bundle.InitExit{Status: 137}},
		"damaged exit":         {func(b *bundle.Bundle) { created(b); put(t, filepath.Join(b.Path(), "exit.json"), "{") }, nil, all, bundle.InitExit{Status: 137}},
		"damaged options":      {func(b *bundle.Bundle) { put(t, filepath.Join(b.Path(), "options.json"), "{") }, nil, []string{"delete ", "kill", "unmount"}, bundle.InitExit{Status: 137}},
		"another shim's files": {func(b *bundle.Bundle) { put(t, filepath.Join(b.Path(), "runtime"), "crun") }, nil, all, bundle.InitExit{Status: 137}},
	} {
		t.Run(name, func(t *testing.T) {
			b := testBundle(t)
			c.prepare(b)
			var first bundle.InitExit
			for i := range 2 {
				s := &steps{err: c.fail}
				before := time.Now()
				got := cleanUp(t.Context(), b, s, slog.New(slog.DiscardHandler))
				if !reflect.DeepEqual(s.done, c.steps) {
					t.Errorf("steps %v, want %v", s.done, c.steps)
				}
				if got.PID != c.want.PID || got.Status != c.want.Status || !c.want.At.IsZero() && !got.At.Equal(c.want.At) {
					t.Errorf("exit %+v, want %+v", got, c.want)
				}
				if c.want.At.IsZero() && i == 0 && got.At.Before(before) {
					t.Errorf("exited at %v", got.At)
				}
				if i == 0 {
					first = got
				} else if !got.At.Equal(first.At) {
					t.Errorf("the second answer is %+v, the first was %+v", got, first)
				}
			}
		})
	}
}

func created(b *bundle.Bundle) {
	if err := b.WriteOptions(&options.Options{BinaryName: "crun"}); err != nil {
		panic(err)
	}
}

// runtimeScript is an OCI runtime that writes its arguments to $0.log.
func runtimeScript(t testing.TB, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho \"$@\" >>"+path+".log\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// The command as containerd runs it, with a dead shim: the runtime is called, mounts
// go, the dead socket goes, and the second answer is the first.
func TestDeleteCommand(t *testing.T) {
	d := newDaemon(t)
	c := d.container("c1")
	a := parse(t, c.start(c.params()))
	shim := connect(t, strings.TrimPrefix(a.Address, "unix://"))

	b, err := bundle.Open(c.bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	rt := runtimeScript(t, "exit 0\n")
	if err := b.WriteOptions(&options.Options{BinaryName: rt, Root: filepath.Join(d.dir, "r")}); err != nil {
		t.Fatal(err)
	}
	put(t, b.PIDPath(bundle.ExecID{}), "4242")
	if err := errors.Join(os.MkdirAll(filepath.Join(d.dir, "r/ns"), 0o700), os.Mkdir(b.Rootfs(), 0o700), unix.Mount("tmpfs", b.Rootfs(), "tmpfs", 0, "size=4k")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(b.Rootfs(), unix.MNT_DETACH) })

	first := c.delete("-bundle", c.bundle)
	if _, err := os.Lstat(shim.path); err != nil {
		t.Errorf("the socket of a living shim was removed: %v", err)
	}
	shim.signal(unix.SIGKILL)
	shim.ended()
	second := c.delete("-bundle", c.bundle)
	if !proto.Equal(first, second) || first.Pid != 4242 || first.ExitStatus != 137 || first.ExitedAt.AsTime().IsZero() {
		t.Errorf("answers %v and %v", first, second)
	}
	if _, err := os.Lstat(shim.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket of a dead shim is left: %v", err)
	}
	calls, err := os.ReadFile(rt + ".log")
	want := fmt.Sprintf("--root %s/r/ns --log %s/log.json --log-format json delete --force c1\n", d.dir, c.bundle)
	if err != nil || !strings.HasPrefix(string(calls), want) {
		t.Errorf("runtime calls %q, want %q; %v", calls, want, err)
	}
	if table, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(table), c.bundle) {
		t.Errorf("still mounted: %v", err)
	}
	if again := c.delete(); again.Pid != 4242 { // from the working directory
		t.Errorf("without -bundle: %v", again)
	}
	gone := c.delete("-bundle", c.bundle+"-gone")
	if gone.ExitStatus != 137 || gone.Pid != 0 {
		t.Errorf("without a bundle: %v", gone)
	}
}

// delete runs delete, which must succeed and answer on standard output.
func (c *container) delete(args ...string) *task.DeleteResponse {
	c.t.Helper()
	cmd := c.command(append(args, "delete")...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("delete: %v: %s", err, &stderr)
	}
	if stderr.Len() > 0 {
		c.t.Errorf("delete warns: %s", &stderr)
	}
	var resp task.DeleteResponse
	if err := proto.Unmarshal(stdout.Bytes(), &resp); err != nil {
		c.t.Fatal(err)
	}
	return &resp
}

// A runtime that hangs does not keep delete from the rest within containerd's limit.
func TestRow32DeleteWithAHungRuntime(t *testing.T) {
	d := newDaemon(t)
	c := d.container("c1")
	b, err := bundle.Open(c.bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.WriteOptions(&options.Options{BinaryName: runtimeScript(t, "exec sleep 100\n")}); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	cmd := c.command("-bundle", c.bundle, "delete")
	out, err := cmd.Output()
	if took := time.Since(begun); err != nil || took > time.Minute {
		t.Errorf("delete took %v: %v", took, err)
	}
	var resp task.DeleteResponse
	if err := proto.Unmarshal(out, &resp); err != nil || resp.ExitStatus != 137 {
		t.Errorf("answer %v, %v", &resp, err)
	}
}

func TestInfo(t *testing.T) {
	d := newDaemon(t)
	c := d.container("c1")
	rt := runtimeScript(t, `echo '{"ociVersionMin":"1.0.0","ociVersionMax":"1.2.0","mountOptions":["ro","rro"]}'`)
	value, err := proto.Marshal(&options.Options{BinaryName: rt})
	if err != nil {
		t.Fatal(err)
	}
	input, err := proto.Marshal(&anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: value})
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.run(input, "-info")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var ri types.RuntimeInfo
	if err := proto.Unmarshal([]byte(out), &ri); err != nil {
		t.Fatal(err)
	}
	if ri.Name != "io.containerd.lark.v2" || ri.Version.Version != "v1" || ri.Version.Revision != "r1" {
		t.Errorf("info %v", &ri)
	}
	if ri.Options.GetTypeUrl() != "containerd.runc.v1.Options" || !bytes.Equal(ri.Options.Value, value) {
		t.Errorf("options %v", ri.Options)
	}
	var f features.Features
	if err := json.Unmarshal(ri.Features.GetValue(), &f); err != nil || ri.Features.TypeUrl != featuresType || len(f.MountOptions) != 2 {
		t.Errorf("features %v, %v", ri.Features, err)
	}
	if out, err := c.run([]byte("garbage"), "-info"); err == nil || !strings.Contains(out, "invalid argument") {
		t.Errorf("garbage: %v: %s", err, out)
	}
	value, _ = proto.Marshal(&options.Options{BinaryName: "no-runc"})
	input, _ = proto.Marshal(&anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: value})
	if out, err := c.run(input, "-info"); err == nil || !strings.Contains(out, `"no-runc"`) {
		t.Errorf("no runtime: %v: %s", err, out)
	}
}

func TestRuntimeName(t *testing.T) {
	for argv0, want := range map[string]string{
		"containerd-shim-lark-v2":              "io.containerd.lark.v2",
		"/usr/bin/containerd-shim-runc-v2":     "io.containerd.runc.v2",
		"/opt/containerd-shim-lark-nightly-v2": "io.containerd.lark-nightly.v2",
		"/usr/local/bin/lark":                  "io.containerd.lark.v2",
		"containerd-shim-lark":                 "io.containerd.lark.v2",
		"/proc/self/fd/7":                      "io.containerd.lark.v2",
	} {
		if got := runtimeName(argv0); got != want {
			t.Errorf("%s: %s, want %s", argv0, got, want)
		}
	}
}
