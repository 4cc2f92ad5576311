package bootstrap

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/taskapi"
)

// A shim is asked to end when it was alone for the whole of the time, and not before.
func TestForsaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		f := newForsaken(time.Minute, func() { asked.Add(1) })
		defer f.stop()
		expect := func(what string, want int32) {
			t.Helper()
			synctest.Wait()
			if got := asked.Load(); got != want {
				t.Errorf("%s: asked %d times, not %d", what, got, want)
			}
		}
		time.Sleep(59 * time.Second)
		f.come() // a slow daemon, just in time
		time.Sleep(time.Hour)
		expect("with a connection", 0)
		f.come()
		f.leave()
		time.Sleep(time.Hour)
		expect("with one of two connections", 0)
		f.leave()
		time.Sleep(59 * time.Second)
		expect("alone for a moment", 0)
		f.come()
		f.leave()
		time.Sleep(59 * time.Second)
		expect("alone again", 0)
		time.Sleep(2 * time.Second)
		expect("alone for long", 1)
		time.Sleep(24 * time.Hour)
		expect("refused because of a container, and nobody came since", 1)
		f.come()
		f.leave()
		time.Sleep(2 * time.Minute)
		expect("alone after another visit", 2)
	})
	var none *forsaken
	none.come()
	none.leave()
}

// Connections count from when they are accepted to when they have ended.
func TestForsakenByItsConnections(t *testing.T) {
	ns, err := bundle.ParseNamespace("ns")
	if err != nil {
		t.Fatal(err)
	}
	q, err := newServer(&fake{}, ns, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	q.forsaken = newForsaken(50*time.Millisecond, func() { close(asked) })
	q.forsaken.come() // ours: the time does not run while the test prepares
	ours, theirs := net.Pipe()
	q.start(context.Background(), theirs)
	q.forsaken.leave()
	select {
	case <-asked:
		t.Fatal("asked with a connection open")
	case <-time.After(200 * time.Millisecond):
	}
	ours.Close()
	select {
	case <-asked:
	case <-time.After(10 * time.Second):
		t.Error("not asked after the connection's end")
	}
	q.close()
}

// A whole shim that nobody calls ends by itself; one with a visitor stays.
func TestForsakenShimEnds(t *testing.T) {
	d := newDaemon(t)
	d.env = append(d.env, forsakenEnv+"=300ms")
	shim := d.container("c1").serving()
	time.Sleep(time.Second) // three times as long, with a connection
	if err := shim.Call(t.Context(), taskapi.V2, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
		t.Fatalf("a shim with a connection ended: %v", err)
	}
	shim.Close()
	shim.ended()
	if got := d.got(); got == "" {
		t.Error("it did not end in order: no event")
	}
}

func TestForsakenTime(t *testing.T) {
	for text, want := range map[string]time.Duration{"": forsakenAfter, "1h": time.Hour, "0": 0, "nonsense": forsakenAfter, "-1s": forsakenAfter} {
		if got := forsakenTime(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
