package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/order"
)

// flavours are the daemons that these tests start, each with the shim that
// came with it: the harness is held against shims that are known to work.
func flavours(t *testing.T) map[string]Config {
	t.Helper()
	return map[string]Config{
		"system": {Binary: System()},
		"2.4":    {Binary: filepath.Join(Built(Containerd24), "containerd")},
	}
}

func start(t *testing.T, cfg Config) *Daemon {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	d, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.Log())
		}
		if err := d.Stop(context.Background()); err != nil {
			t.Errorf("stopping: %v", err)
		}
		if left := d.Leftovers(); len(left) > 0 {
			t.Errorf("left after Stop: %q", left)
		}
	})
	return d
}

func TestOneContainerFromBeginToEnd(t *testing.T) {
	for name, cfg := range flavours(t) {
		t.Run(name, func(t *testing.T) {
			d := start(t, cfg)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c := must(d.Client(ctx, "one"))(t)
			check := order.New()
			sub := must(c.Subscribe(ctx, func(e Envelope) { check.Observe(e.Event) }))(t)
			runOne(ctx, t, d, c, sub)
			sub.Close()
			want := []string{"/containers/create", "/tasks/create", "/tasks/start", "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit", "/tasks/exit", "/containers/delete"}
			// The delete event is where upstream's shim may have ended before it was sent.
			got := slices.DeleteFunc(topics(sub), func(topic string) bool { return topic == "/tasks/delete" })
			if !slices.Equal(got, want) {
				t.Errorf("topics\n%v, want\n%v", got, want)
			}
			if vs := check.Finish(); len(vs) > 0 {
				t.Errorf("violations: %v", vs)
			}
			if n := check.Counts(); n.Containers != 1 || n.Execs != 1 || n.Exits != 2 {
				t.Errorf("counts: %+v", n)
			}
			if left := d.NothingLeft(ctx); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// runOne creates, starts and execs, kills, waits and deletes. It waits for the
// event of init's exit before the delete: a delete that comes at once after the
// answer to wait is where upstream's shim turns the two around or loses one (W7,
// W11), and here the harness is tested, not the shim.
func runOne(ctx context.Context, t *testing.T, d *Daemon, c *Client, sub *Subscription) {
	t.Helper()
	rootfs := must(d.Rootfs())(t)
	ok(t, c.CreateContainer(ctx, "a", d.Runc("io.containerd.runc.v2", ""), d.Spec("a", SpecOpts{Args: []string{"sleep", "100"}})))
	pid := must(c.CreateTask(ctx, "a", BindRootfs(rootfs), Stdio{}))(t)
	if got := must(c.Start(ctx, "a", ""))(t); got != pid || pid == 0 {
		t.Errorf("start answered pid %d, create %d", got, pid)
	}
	shim, found := d.Shim("a")
	if !found {
		t.Fatalf("no shim of a among %v", d.Processes())
	}
	if fds, err := FDs(shim.Pid); err != nil || len(fds) < 3 {
		t.Errorf("fds of the shim: %v, %v", fds, err)
	}
	if left := strings.Join(d.Leftovers(), "\n"); !strings.Contains(left, "cgroup ") || !strings.Contains(left, "mount ") ||
		!strings.Contains(left, "file ") || !strings.Contains(left, "process ") {
		t.Errorf("of a running container there should be a process, a mount, a cgroup and files:\n%s", left)
	}
	ok(t, c.Exec(ctx, "a", "x", Process("sh", "-c", "exit 7"), Stdio{}))
	must(c.Start(ctx, "a", "x"))(t)
	if e := must(c.Wait(ctx, "a", "x"))(t); e.Status != 7 {
		t.Errorf("the exec's status: %d", e.Status)
	}
	must(c.Delete(ctx, "a", "x"))(t)
	ok(t, c.Kill(ctx, "a", "", 9, false))
	if e := must(c.Wait(ctx, "a", ""))(t); e.Status != 137 || time.Since(e.At) > time.Minute {
		t.Errorf("init's exit: %+v", e)
	}
	until(ctx, t, sub, order.Exited, "")
	if e := must(c.Delete(ctx, "a", ""))(t); e.Pid != pid || e.Status != 137 {
		t.Errorf("delete answered %+v", e)
	}
	if _, err := c.Status(ctx, "a", ""); !errdefs.IsNotFound(err) {
		t.Errorf("status after delete: %v", err)
	}
	ok(t, c.DeleteContainer(ctx, "a"))
	ok(t, sub.Until(ctx, func(es []Envelope) bool { return es[len(es)-1].Topic == "/containers/delete" }))
}

// until waits for one event.
func until(ctx context.Context, t *testing.T, sub *Subscription, kind order.Kind, exec string) {
	t.Helper()
	err := sub.Until(ctx, func(es []Envelope) bool {
		return slices.ContainsFunc(es, func(e Envelope) bool { return e.Event.Kind == kind && e.Event.Exec == exec })
	})
	if err != nil {
		t.Fatalf("no %v of %q: %v, after %v", kind, exec, err, topics(sub))
	}
}

func TestRestartKeepsContainersAndStopSweepsThem(t *testing.T) {
	d := start(t, Config{Binary: filepath.Join(Built(Containerd24), "containerd")})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := must(d.Client(ctx, "keep"))(t)
	rootfs := must(d.Rootfs())(t)
	for _, o := range []SpecOpts{{Args: []string{"sleep", "1000"}}, {Args: []string{"sleep", "1000"}, HostPID: true}} {
		id := map[bool]string{false: "own", true: "host"}[o.HostPID]
		ok(t, c.CreateContainer(ctx, id, d.Runc("io.containerd.runc.v2", ""), d.Spec(id, o)))
		must(c.CreateTask(ctx, id, BindRootfs(rootfs), Stdio{}))(t)
		must(c.Start(ctx, id, ""))(t)
	}
	before := d.Pid()
	ok(t, d.Restart(ctx))
	if d.Pid() == before {
		t.Error("the same process after Restart")
	}
	ok(t, d.Kill())
	if len(d.Shims()) != 2 {
		t.Errorf("shims outlive their daemon: %v", d.Shims())
	}
	ok(t, d.Launch(ctx))
	if p := must(c.Status(ctx, "own", ""))(t); p.Pid == 0 {
		t.Errorf("status after restart: %v", p)
	}
	// The containers are left running: Stop, in start's Cleanup, must end them.
}

func TestWhatCannotStart(t *testing.T) {
	if _, err := Start(t.Context(), Config{Binary: "no-such-containerd"}); err == nil {
		t.Error("started what is not there")
	}
	if _, err := Start(t.Context(), Config{Binary: System(), Extra: "this is no TOML"}); err == nil || !strings.Contains(err.Error(), "does not serve") {
		t.Errorf("a daemon that ends at once must be told of: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Config{Binary: System()}); !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "anceled") {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWithoutCgroup2(t *testing.T) {
	d := start(t, Config{Binary: System(), WithoutCgroup2: true})
	hidden := hybridCgroup2()
	table, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(d.Pid()), "mountinfo"))
	ok(t, err)
	if len(hidden) > 0 && strings.Contains(string(table), " - cgroup2 ") {
		t.Errorf("the daemon still sees %q", hidden)
	}
	if got := hybridCgroup2(); !slices.Equal(got, hidden) {
		t.Errorf("the test's own mounts were touched: %q, were %q", got, hidden)
	}
}

func topics(s *Subscription) []string {
	var ts []string
	for _, e := range s.All() {
		ts = append(ts, e.Topic)
	}
	return ts
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// must(f())(t) is f's value, and ends the test on its error.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		ok(t, err)
		return v
	}
}
