package shimclient

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/calibrate"
	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/shimclient/fakeshim"
)

func TestMain(m *testing.M) {
	fakeshim.Main()
	os.Exit(m.Run())
}

// stage is a Home with a Sink that keeps its events, and a Config for the fake shim.
func stage(t *testing.T, scenario string) (Config, *Bundle, *[]Event) {
	t.Helper()
	t.Setenv(fakeshim.Env, scenario)
	home, err := NewHome("")
	if err != nil {
		t.Fatal(err)
	}
	events := new([]Event)
	sink, err := NewSink(home, slog.New(slog.NewTextHandler(io.Discard, nil)), func(e Event) { *events = append(*events, e) })
	if err != nil {
		t.Fatal(err)
	}
	b, err := home.NewBundle("c1", &specs.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(sink.Close(), home.Close()); err != nil {
			t.Error(err)
		}
		if pids := processesIn(home.Dir); len(pids) > 0 {
			t.Errorf("processes %v were left behind", pids)
		}
		if _, err := os.Stat(home.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was left behind", home.Dir)
		}
	})
	return Config{Binary: self, Runtime: "/bin/false", Namespace: "test", Home: home, Sink: sink}, b, events
}

// lifeOf takes one container through a shim and returns what State was left at.
func lifeOf(ctx context.Context, s *Shim, b *Bundle) error {
	if _, err := s.Create(ctx, &taskapi.CreateTaskRequest{ID: b.ID, Bundle: b.Path}); err != nil {
		return err
	}
	if _, err := s.Task.Start(ctx, &taskapi.StartRequest{ID: b.ID}); err != nil {
		return err
	}
	w, err := s.Wait(ctx, &taskapi.WaitRequest{ID: b.ID})
	if err != nil {
		return err
	}
	if w.ExitStatus != fakeshim.Status {
		return errors.New("wrong status")
	}
	_, err = s.Delete(ctx, &taskapi.DeleteRequest{ID: b.ID})
	return err
}

func TestEveryFormOfAnswer(t *testing.T) {
	for scenario, c := range map[string]struct {
		era  Era
		form Form
	}{
		fakeshim.Address:     {EraPlain, FormAddress},
		fakeshim.JSON:        {EraOptions, FormJSON},
		fakeshim.Proto:       {EraAny, FormProto},
		fakeshim.OptionsOnly: {EraAny, FormJSON},
	} {
		t.Run(scenario, func(t *testing.T) {
			cfg, b, events := stage(t, scenario)
			cfg.Era = c.era
			s, err := Start(t.Context(), cfg, b)
			if err != nil {
				t.Fatal(err)
			}
			if s.Answer.Form != c.form || s.Pid <= 1 {
				t.Errorf("got %+v, pid %d", s.Answer, s.Pid)
			}
			if err := lifeOf(t.Context(), s, b); err != nil {
				t.Error(err)
			}
			if err := s.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			want := []order.Kind{order.Created, order.Started, order.Exited, order.Deleted}
			for i, e := range *events {
				if i >= len(want) || e.Task.Kind != want[i] || e.Task.Sent.IsZero() {
					t.Errorf("event %d is %+v", i, e)
				}
			}
			if len(*events) != len(want) {
				t.Errorf("%d events", len(*events))
			}
		})
	}
}

// TestStartFails: whatever `start` has begun is gone when Start returns its error.
func TestStartFails(t *testing.T) {
	for scenario, era := range map[string]Era{
		fakeshim.Garbage:     EraAny,
		fakeshim.Fails:       EraAny,
		fakeshim.OptionsOnly: EraBootstrap,
	} {
		t.Run(scenario, func(t *testing.T) {
			cfg, b, _ := stage(t, scenario)
			cfg.Era = era
			s, err := Start(t.Context(), cfg, b)
			if err == nil {
				t.Fatalf("started: %+v", s.Answer)
			}
			if _, err := os.Stat(b.Path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the bundle is still there: %v", err)
			}
		})
	}
}

// TestStartHangs: a `start` or a first call that never ends is given up with its context,
// and the server that it has begun is found and killed.
func TestStartHangs(t *testing.T) {
	for _, scenario := range []string{fakeshim.Hangs, fakeshim.Dumb} {
		t.Run(scenario, func(t *testing.T) {
			cfg, b, _ := stage(t, scenario)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				// The helper has begun its server when the socket is there.
				for ctx.Err() == nil && len(processesIn(b.Path)) < 2 && !(scenario == fakeshim.Dumb && exists(filepath.Join(b.Path, "shim.sock"))) {
					pause(ctx, time.Millisecond)
				}
				cancel()
			}()
			if _, err := Start(ctx, cfg, b); err == nil {
				t.Fatal("started")
			}
		})
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// TestStopHard: with its context done, Stop does not wait for a shim that stays.
func TestStopHard(t *testing.T) {
	cfg, b, _ := stage(t, fakeshim.Stubborn)
	s, err := Start(t.Context(), cfg, b)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begin := time.Now()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > calibrate.Stretch(exitTimeout/2) {
		t.Errorf("it took %v", took)
	}
	if err := unix.Kill(s.Pid, 0); err == nil && len(processesIn(cfg.Home.Dir)) > 0 {
		t.Errorf("shim %d lives", s.Pid)
	}
}

// TestShimDies: calls in flight end with ErrUnavailable, and Gone is closed.
func TestShimDies(t *testing.T) {
	cfg, b, _ := stage(t, fakeshim.DiesInCreate)
	s, err := Start(t.Context(), cfg, b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), &taskapi.CreateTaskRequest{ID: b.ID, Bundle: b.Path}); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v", err)
	}
	<-s.Gone()
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestUnimplementedCall(t *testing.T) {
	cfg, b, _ := stage(t, fakeshim.JSON)
	s, err := Start(t.Context(), cfg, b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.State(t.Context(), &taskapi.StateRequest{ID: b.ID}); !errdefs.IsNotImplemented(err) {
		t.Errorf("got %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
