package task

import (
	"context"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/taskapi"
)

// createOn begins a Create on a connection, which is stopped in the runtime.
func (b *box) createOn(conn uint64, ctl *fake.Control, at fake.Point) <-chan tried[*task.CreateTaskResponse] {
	b.t.Helper()
	b.Opened(conn)
	ctl.Become(b.t, change(fake.On(at, fake.Wait("go").For(b.id))))
	create := begin(func() (*task.CreateTaskResponse, error) {
		return b.Create(taskapi.WithConn(context.Background(), conn), b.request)
	})
	ctl.Reached(b.t, at, 1)
	return create
}

func (s *shim) awaitShutdown() {
	s.t.Helper()
	select {
	case <-s.shutdown:
	case <-time.After(patience):
		s.t.Fatalf("the shim does not end\n%s", s.log)
	}
}

// F04: a Create whose client has gone is undone when it ends, its events are told, and
// the Shutdown that came meanwhile ends the shim.
func TestF04CreateWhoseClientHasGone(t *testing.T) {
	for name, at := range map[string]fake.Point{"before the fork": fake.Before(fake.Create), "after it": fake.After(fake.Create)} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
			create := b.createOn(1, ctl, at)
			if _, err := b.del(""); !errdefs.IsNotFound(err) {
				t.Errorf("Delete meanwhile: %v", err)
			}
			if _, err := s.Shutdown(t.Context(), &task.ShutdownRequest{}); err != nil {
				t.Error(err)
			}
			s.Closed(1)
			ctl.Open(t, "go")
			ended(t, "create", create)
			s.awaitShutdown()
			if _, err := s.State(t.Context(), &task.StateRequest{ID: b.id}); !errdefs.IsNotFound(err) {
				t.Errorf("State: %v", err)
			}
			if pids := ctl.Processes(t); len(pids) != 0 {
				t.Errorf("processes %v are left", pids)
			}
			s.eventually("delete", func(e order.Event) bool { return e.Container == b.id && e.Kind == order.Deleted })
			if got, want := s.kinds(b.id), []order.Kind{order.Created, order.Exited, order.Deleted}; !slices.Equal(got, want) {
				t.Errorf("events %v, want %v", got, want)
			}
		})
	}
}

// F04: a Create whose client is there stays when another client leaves, and when its
// own leaves after the answer.
func TestF04OtherCreatesStay(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	s.Opened(7)
	create := b.createOn(1, ctl, fake.Before(fake.Create))
	s.Closed(7)
	ctl.Open(t, "go")
	if r := ended(t, "create", create); r.err != nil {
		t.Fatal(r.err)
	}
	if _, err := s.Shutdown(t.Context(), &task.ShutdownRequest{}); err != nil { // for it there is a container
		t.Error(err)
	}
	s.Closed(1)
	b.start("")
	if err := b.kill("", 9); err != nil {
		t.Error(err)
	}
	b.wait("")
	b.mustDelete("")
	select {
	case <-s.shutdown:
		t.Error("an old Shutdown has ended the shim")
	default:
	}
}

// F04: a create that cannot be undone is undone when the runtime allows it.
func TestF04UndoingIsTriedAgain(t *testing.T) {
	s := newShim(t)
	s.removePause = time.Millisecond
	b, ctl := s.scripted(nil, fake.On(fake.Before(fake.Delete), fake.Fail("not now").First("delete")), "sleep", "1000")
	b.Opened(1)
	b.Closed(1) // it was read, and then the client left
	if _, err := b.Create(taskapi.WithConn(t.Context(), 1), b.request); err != nil {
		t.Fatal(err)
	}
	s.eventually("delete", func(e order.Event) bool { return e.Container == b.id && e.Kind == order.Deleted })
	if pids := ctl.Processes(t); len(pids) != 0 {
		t.Errorf("processes %v are left", pids)
	}
}

// F05: a shim without a connection, whose inits are dead and whose bundles are gone,
// removes its containers and ends. A shim whose containers can be asked for stays.
func TestF05OrphanEnds(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.Opened(1)
	if _, err := b.Create(taskapi.WithConn(t.Context(), 1), b.request); err != nil {
		t.Fatal(err)
	}
	b.start("")
	s.Closed(1)
	look := func() { // as the timer does
		s.mu.Lock()
		watch := s.shim.watches
		s.mu.Unlock()
		s.look(watch)
	}
	stays := func(why string) {
		t.Helper()
		for range 5 {
			look()
		}
		select {
		case <-s.shutdown:
			t.Fatalf("it ends: %s", why)
		default:
		}
		if _, err := s.State(t.Context(), &task.StateRequest{ID: b.id}); err != nil {
			t.Fatalf("%s: %v", why, err)
		}
	}
	stays("the container runs")
	if err := os.Rename(b.bundle, b.bundle+"-moved"); err != nil {
		t.Fatal(err)
	}
	stays("the container runs, its bundle is gone")
	if err := os.Rename(b.bundle+"-moved", b.bundle); err != nil {
		t.Fatal(err)
	}
	if err := b.kill("", 9); err != nil {
		t.Fatal(err)
	}
	b.wait("")
	stays("the bundle is there")
	if err := os.RemoveAll(b.bundle); err != nil {
		t.Fatal(err)
	}
	look()
	s.Opened(2) // a client comes
	look()
	s.Closed(2)
	look()
	select {
	case <-s.shutdown:
		t.Fatal("one look was enough")
	default:
	}
	for range 3 {
		look()
	}
	s.awaitShutdown()
	if pids := ctl.Processes(t); len(pids) != 0 {
		t.Errorf("processes %v are left", pids)
	}
}

// A shim is asked to end when it was alone for the whole of the time, and not before.
func TestForsaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		f := New(Config{Alone: time.Minute, Shutdown: func() { asked.Add(1) }})
		expect := func(what string, want int32) {
			t.Helper()
			synctest.Wait()
			if got := asked.Load(); got != want {
				t.Errorf("%s: ended %d times, not %d", what, got, want)
			}
		}
		time.Sleep(59 * time.Second)
		f.Opened(1) // a slow daemon, just in time
		time.Sleep(time.Hour)
		expect("with a connection", 0)
		f.Opened(2)
		f.Closed(1)
		time.Sleep(time.Hour)
		expect("with one of two connections", 0)
		f.Closed(2)
		time.Sleep(59 * time.Second)
		expect("alone for a moment", 0)
		f.Opened(3)
		f.Closed(3)
		time.Sleep(59 * time.Second)
		expect("alone again", 0)
		time.Sleep(2 * time.Second)
		expect("alone for long", 1)
		f.Opened(4)
		f.Closed(4)
		time.Sleep(24 * time.Hour)
		expect("it has ended already", 1)
	})
	never := New(Config{Shutdown: func() { t.Error("ended") }})
	never.Opened(1)
	never.Closed(1)
	if never.shim.watch != nil {
		t.Error("it looks")
	}
}
