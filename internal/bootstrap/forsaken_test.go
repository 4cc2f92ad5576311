package bootstrap

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/bundle"
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
	ours, theirs := socketPair(t)
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
	case <-time.After(time.Minute):
		t.Error("not asked after the connection's end")
	}
	q.close()
}

// A whole shim that nobody calls any more ends by itself, and in order.
func TestForsakenShimEnds(t *testing.T) {
	d := newDaemon(t)
	// Time enough for the test itself to connect, on a busy machine and with the race
	// detector.
	d.env = append(d.env, forsakenEnv+"=3s")
	shim := d.container("c1").serving()
	shim.Close()
	shim.ended()
	if d.got() == "" {
		t.Error("it did not end in order: no event")
	}
	if _, err := os.Lstat(shim.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestForsakenTime(t *testing.T) {
	for text, want := range map[string]time.Duration{"": forsakenAfter, "1h": time.Hour, "0": 0, "nonsense": forsakenAfter, "-1s": forsakenAfter} {
		if got := forsakenTime(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// socketPair is a connection, as both of its ends see it.
func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}
