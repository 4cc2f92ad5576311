package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/log"
)

// helperEnv makes the test's binary the bare runtime's helper.
const helperEnv = "LARK_BENCH_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		if err := ServeBare(context.Background(), os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(crunEnv) != "" {
		if err := benchCrun(); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	log.SetLevel("fatal") // the ttrpc library logs answers that nobody waits for any more
	os.Exit(m.Run())
}

// realConfig measures the shims of this machine with the stub: lark's own, when it is
// built, and the distribution's.
func realConfig(t *testing.T, only ...string) Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "larkb") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		left, err := filepath.Glob(dir + "/*")
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		os.RemoveAll(dir)
	})
	stub := buildStub(t)
	t.Setenv(helperEnv, "1") // the shims have no use for it
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Runtimes: []Runtime{{Name: stubRuntime, Path: stub, Stub: true}}, Only: only, Rounds: 1, Quick: true,
		BareHelper: []string{self}, Log: slog.New(slog.DiscardHandler),
	}
	for _, path := range []string{"../../bin/containerd-shim-lark-v2", "containerd-shim-runc-v2"} {
		if s, err := ParseShim(path); err == nil {
			cfg.Shims = append(cfg.Shims, s)
			break // one is enough: the measures are tested, not the shims
		}
	}
	if len(cfg.Shims) == 0 {
		t.Fatal("there is neither lark's own shim in bin (make builds it) nor containerd's in PATH")
	}
	return cfg
}

// TestRealMeasures runs measures over a real shim and the stub, and looks whether the
// figures can be true. Execs are the costly ones, and Debian's 1.6 shim is slow at them.
func TestRealMeasures(t *testing.T) {
	cfg := realConfig(t, "task", "whole", "start", "added", "stdout")
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Key{
		{"task", "wall", stubRuntime, 1}, {"task", "wall", stubRuntime, atOnce},
		{"whole", "wall", stubRuntime, 1}, {"whole", "wall", stubRuntime, atOnce},
		{"start", "helper", stubRuntime, 0}, {"start", "ready", stubRuntime, 0},
		{"stdout", "rate", stubRuntime, 0}, {"stdout", "cpu", stubRuntime, 0},
	} {
		f := r.find(want, cfg.Shims[0].Name)
		if f == nil || f.Median <= 0 || f.Ratio != 1 {
			t.Errorf("%+v: %+v", want, f)
		}
	}
	bare := r.find(Key{"task", "wall", stubRuntime, 1}, Bare)
	if bare == nil || bare.Median <= 0 || bare.Median > 1000 {
		t.Errorf("the bare runtime: %+v", bare)
	}
}

// TestF11HeldExecveIsMeasured: the measure is made when it is named, and only then.
func TestF11HeldExecveIsMeasured(t *testing.T) {
	cfg := realConfig(t, measureHeld)
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range heldMetrics {
		if f := r.find(Key{measureHeld, m[0], stubRuntime, 0}, cfg.Shims[0].Name); f == nil || f.Median <= 0 {
			t.Errorf("%s: %+v", m[0], f)
		}
	}
	if withHeld(&bench{cfg: Config{Runtimes: cfg.Runtimes}}, cfg.Runtimes[0]) {
		t.Error("it is made without having been named")
	}
}

// TestBareExecs: the helper runs execs, and leaves nothing.
func TestBareExecs(t *testing.T) {
	cfg := realConfig(t)
	b := &bench{cfg: cfg, result: newResult(cfg), progress: newProgress(nil, 1), rootfs: "/"}
	x, err := b.newBare(t.Context(), cfg.Runtimes[0])
	if err != nil {
		t.Fatal(err)
	}
	out, err := x.do(bareExecs, 64, 16)
	if err != nil || len(out.Each) != 64 || out.per() <= 0 {
		t.Errorf("got %+v, %v", out, err)
	}
	if _, err := x.do("nonsense", 1, 1); err == nil {
		t.Error("an operation that does not exist")
	}
	if err := x.close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestInterrupted: a run that is ended early clears up (realConfig's cleanup looks).
func TestInterrupted(t *testing.T) {
	cfg := realConfig(t, "task")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) && err == nil {
		t.Errorf("got %v", err)
	}
}

// TestServeBareRefuses: the helper says what is wrong instead of hanging.
func TestServeBareRefuses(t *testing.T) {
	if err := ServeBare(t.Context(), strings.NewReader("nonsense"), &bytes.Buffer{}); err == nil {
		t.Error("nonsense was accepted")
	}
	var a bareAnswer
	if err := json.Unmarshal([]byte(`{"Error":"x"}`), &a); err != nil || a.Error != "x" {
		t.Errorf("got %+v, %v", a, err)
	}
}
