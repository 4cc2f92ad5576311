package bench

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseCPU(t *testing.T) {
	const line = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 150 25 1000 2000 20 0 9 0 100 1 2"
	if got, err := parseCPU([]byte(line)); err != nil || got != 1750*time.Millisecond {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "42 (a) S 1", "42 (a) S 1 2 3 4 5 6 7 8 9 10 x y 1"} {
		if _, err := parseCPU([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestParseRollup(t *testing.T) {
	const text = "00400000-7ffd rollup\nRss:   100 kB\nPss:   50 kB\nPss_Anon: 7 kB\nPrivate_Clean: 8 kB\nPrivate_Dirty:  2 kB\nAnonymous: 4 kB\n"
	f := parseRollup([]byte(text))
	if f.Resident != 100<<10 || f.Proportional != 50<<10 || f.Private != 10<<10 || f.Anonymous != 4<<10 {
		t.Errorf("got %+v", f)
	}
}

// TestOwnFootprint reads this process's own figures, which cannot be nothing.
func TestOwnFootprint(t *testing.T) {
	f, err := footprintOf(os.Getpid())
	if err != nil || f.Resident <= 0 || f.Threads < 1 || f.Descriptors < 3 || f.Private > f.Resident {
		t.Errorf("got %+v, %v", f, err)
	}
	if fine, err := fineCPUOf(os.Getpid()); err != nil || fine <= 0 {
		t.Errorf("got %v, %v", fine, err)
	}
	if _, err := cpuOf(os.Getpid()); err != nil {
		t.Error(err)
	}
	if _, err := fineCPUOf(-1); err == nil {
		t.Error("a process that does not exist has a CPU time")
	}
}

func TestRunBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		b, err := runBatch(t.Context(), 40, 8, func(context.Context, int) error {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Second) // the bubble's clock
			now.Add(-1)
			return nil
		})
		if err != nil || len(b.Each) != 40 || b.Slow {
			t.Fatalf("got %+v, %v", b, err)
		}
		if most.Load() != 8 || b.Wall != 5*time.Second || b.Each[0] != time.Second || b.per() != 125*time.Millisecond {
			t.Errorf("%d at once, %v", most.Load(), b.Wall)
		}
	})
}

// TestRunBatchSlow: when the time is up, no more is begun and what was begun counts.
func TestRunBatchSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := runBatch(t.Context(), 100, 1, func(context.Context, int) error {
			time.Sleep(batchBudget / 4)
			return nil
		})
		if err != nil || !b.Slow || len(b.Each) == 0 || len(b.Each) > 6 {
			t.Errorf("got %d, %v, %v", len(b.Each), b.Slow, err)
		}
	})
}

// TestHopeless: half of the work in the time is slow, less is hopeless, and so is what takes
// much longer than the time in which it was begun.
func TestHopeless(t *testing.T) {
	for _, c := range []struct {
		done int
		wall time.Duration
		slow bool
		want bool
	}{
		{50, batchBudget, true, false}, {49, batchBudget, true, true}, {0, batchBudget, true, true},
		{100, time.Second, false, false}, {100, 2 * batchBudget, false, true},
	} {
		if got := (batch{Wall: c.wall, Each: make([]time.Duration, c.done), Slow: c.slow}).hopeless(100); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

// TestFirstTwo: with which runtimes a measure is made.
func TestFirstTwo(t *testing.T) {
	rts := []Runtime{{Name: "stub", Stub: true}, {Name: "runc"}, {Name: "crun"}}
	b := &bench{cfg: Config{Runtimes: rts}}
	for i, rt := range rts {
		if got := firstTwo(b, rt); got != (i < 2) {
			t.Errorf("%s: %v", rt.Name, got)
		}
	}
	if b.cfg.Runtimes = rts[:1]; !firstTwo(b, rts[0]) {
		t.Error("not with the only one")
	}
}

func TestRunBatchFails(t *testing.T) {
	broken := errors.New("broken")
	var begun atomic.Int64
	_, err := runBatch(t.Context(), 1000, 2, func(_ context.Context, i int) error {
		begun.Add(1)
		if i == 3 {
			return broken
		}
		return nil
	})
	if !errors.Is(err, broken) || begun.Load() > 100 {
		t.Errorf("got %v after %d", err, begun.Load())
	}
}

func TestParseShim(t *testing.T) {
	s, err := ParseShim("x=/bin/true")
	if err != nil || s.Name != "x" || s.Path != "/bin/true" {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := ParseShim("x=/no/such/shim"); err == nil {
		t.Error("a shim that does not exist")
	}
	rt, err := ParseRuntime("true")
	if err != nil || rt.Name != "true" || rt.Stub {
		t.Errorf("got %+v, %v", rt, err)
	}
}

func TestChoose(t *testing.T) {
	if all, err := choose(nil); err != nil || len(all) != len(measures()) {
		t.Errorf("got %d, %v", len(all), err)
	}
	two, err := choose([]string{"memory", "exec"})
	if err != nil || len(two) != 2 || two[0].name != "exec" {
		t.Errorf("got %v, %v", two, err)
	}
	if _, err := choose([]string{"exec", "nonsense"}); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("got %v", err)
	}
}

// TestAlternate: every column has its turn in every round, and each comes first in turn.
func TestAlternate(t *testing.T) {
	b := &bench{cfg: Config{Shims: []Shim{{Name: "a"}, {Name: "b"}}}, progress: newProgress(nil, 1)}
	var order []string
	err := b.alternate(t.Context(), Runtime{}, 3, true, "x", func(c column) error {
		order = append(order, c.name[:1])
		return nil
	})
	if got := strings.Join(order, ""); err != nil || got != "bab"+"abb"+"bba" {
		t.Errorf("got %q, %v", got, err)
	}
}

// buildStub builds the stub as make does.
func buildStub(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/" + StubName
	cmd := exec.Command("go", "build", "-ldflags", "-s -w -E main.entry", "-o", path, "github.com/larkshim/lark/cmd/lark-stub-runtime")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}
