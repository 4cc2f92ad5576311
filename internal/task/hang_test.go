package task

// Row 32 and the weaknesses around it: a runtime call that hangs is killed at its
// deadline with all that it forked, and nothing else waits for it (W6, W12, W13).

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

// neighbour is a second container, whose life must not be disturbed by the first's.
func (b *box) liveOn(ctl *fake.Control, name string) {
	b.t.Helper()
	n := b.beside(ctl, "sleep", "1000")
	within(b.t, name+": create of another", func() error { _, err := n.Create(context.Background(), n.request); return err })
	within(b.t, name+": start of another", func() error {
		_, err := n.Start(context.Background(), &task.StartRequest{ID: n.id})
		return err
	})
	n.answers()
	within(b.t, name+": kill of another", func() error { return n.kill("", 9) })
	within(b.t, name+": exit of another", func() error {
		_, err := n.Wait(context.Background(), &task.WaitRequest{ID: n.id})
		return err
	})
	within(b.t, name+": delete of another", func() error { _, err := n.del(""); return err })
}

// deadlines gives every runtime call of the test so long.
func deadlines(t *testing.T, d time.Duration) {
	for _, op := range []string{"CREATE", "START", "EXEC", "KILL", "DELETE", "PAUSE", "RESUME", "UPDATE", "STATE"} {
		t.Setenv("LARK_TIMEOUT_"+op, d.String())
	}
}

func isDeadline(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

// Row 32: create hangs. Before, between and after its fork.
func TestRow32HungCreate(t *testing.T) {
	deadlines(t, shortDeadline)
	for name, at := range map[string]func(string) fake.Point{"before": fake.Before, "forked": fake.Forked, "written": fake.Written, "after": fake.After} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShim(t)
			b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
			ctl.Become(t, change(fake.On(at(fake.Create), fake.Hang().For(b.id).First("hang"))))
			create := b.beginCreate()
			ctl.Reached(t, at(fake.Create), 1)
			within(t, "State", func() error {
				if _, err := b.find2(); !errdefs.IsNotFound(err) {
					return errors.New("the container is shown before it is created")
				}
				return nil
			})
			if _, err := s.Create(context.Background(), b.request); !errdefs.IsAlreadyExists(err) {
				t.Errorf("W4: a second create meanwhile: %v", err)
			}
			if _, err := s.Shutdown(context.Background(), &task.ShutdownRequest{}); err != nil {
				t.Errorf("W4: shutdown meanwhile: %v", err)
			}
			select {
			case <-s.shutdown:
				t.Error("W4: it shut down")
			default:
			}
			b.liveOn(ctl, "hung create")
			pending(t, "create", create)
			if r := ended(t, "create", create); !isDeadline(r.err) {
				t.Errorf("create: %v", r.err)
			}
			gone(t, ctl)
			if n := b.kinds(b.id); len(n) != 0 {
				t.Errorf("events %v", n)
			}
			b.create() // nothing is in the way of another try
		})
	}
}

// Row 32, invariant 19: start hangs. A kill meanwhile reaches init and is not lost.
func TestRow32HungStart(t *testing.T) {
	deadlines(t, shortDeadline)
	for name, c := range map[string]struct {
		at   func(string) fake.Point
		kill bool
	}{"before": {fake.Before, false}, "after": {fake.After, false}, "before, killed": {fake.Before, true}, "after, killed": {fake.After, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShim(t)
			b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
			b.create()
			ctl.Become(t, change(fake.On(c.at(fake.Start), fake.Hang().For(b.id))))
			wait := b.beginWait("")
			start := b.beginStart("")
			ctl.Reached(t, c.at(fake.Start), 1)
			b.answers()
			if _, err := b.del(""); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("invariant 20: delete meanwhile: %v", err)
			}
			if c.kill {
				within(t, "kill", func() error { return b.kill("", 9) })
			}
			b.liveOn(ctl, "hung start")
			pending(t, "start", start)
			if r := ended(t, "start", start); !isDeadline(r.err) {
				t.Errorf("start: %v", r.err)
			}
			// Nobody can say whether it runs; so it does not.
			if w := ended(t, "wait", wait); w.err != nil || w.answer.ExitStatus != 137 {
				t.Errorf("wait: %v, %v", w.answer, w.err)
			}
			b.mustDelete("")
			for _, k := range b.kinds(b.id) {
				if k == order.Started {
					t.Error("invariant 10: a start that failed was announced")
				}
			}
			gone(t, ctl)
		})
	}
}

// Row 32, W12: exec hangs. It holds nobody up but itself; init's exit comes, at the
// latest, when the exec has come to its deadline.
func TestRow32W12HungExec(t *testing.T) {
	deadlines(t, shortDeadline)
	for name, at := range map[string]func(string) fake.Point{"before": fake.Before, "forked": fake.Forked, "written": fake.Written, "after": fake.After} {
		for _, killed := range []bool{false, true} {
			n := name
			if killed {
				n += ", init dies"
			}
			t.Run(n, func(t *testing.T) {
				t.Parallel()
				s := newShim(t)
				b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
				b.create()
				b.start("")
				ctl.Become(t, change(fake.On(at(fake.Exec), fake.Hang().First("hang"))))
				if err := b.addExec("hung", "sleep", "1000"); err != nil {
					t.Fatal(err)
				}
				wait, initWait := b.beginWait("hung"), b.beginWait("")
				start := b.beginStart("hung")
				ctl.Reached(t, at(fake.Exec), 1)
				b.answers("hung")
				if !killed {
					within(t, "another exec", func() error { b.exec("other", "true"); b.wait("other"); _, err := b.del("other"); return err })
				} else {
					within(t, "kill", func() error { return b.kill("", 9) })
					b.answers("hung")
				}
				b.liveOn(ctl, "hung exec")
				if r := ended(t, "start", start); !isDeadline(r.err) {
					t.Errorf("start: %v", r.err)
				}
				if r := ended(t, "wait", wait); !errdefs.IsFailedPrecondition(r.err) {
					t.Errorf("wait on the exec: %v, %v", r.answer, r.err)
				}
				if killed {
					if r := ended(t, "wait for init", initWait); r.err != nil || r.answer.ExitStatus != 137 {
						t.Errorf("wait for init: %v, %v", r.answer, r.err)
					}
				} else {
					until(t, "the exec's process is left", func() bool { return len(ctl.Processes(t)) == 1 })
					if st := b.state("hung"); st.Status != apitypes.Status_CREATED {
						t.Errorf("state %v", st)
					}
				}
			})
		}
	}
}

// Row 32: kill hangs. A SIGKILL gets through at the deadline all the same; State and
// the others answer meanwhile (W13).
func TestRow32HungKill(t *testing.T) {
	deadlines(t, shortDeadline)
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	ctl.Become(t, change(fake.On(fake.Before(fake.Kill), fake.Hang().For(b.id))))
	b.create()
	b.start("")
	b.exec("x", "sleep", "1000")
	kill := begin(func() (struct{}, error) { return struct{}{}, b.kill("", 9) })
	ctl.Reached(t, fake.Before(fake.Kill), 1)
	b.answers("x")
	within(t, "kill of an exec", func() error { return b.kill("x", 9) })
	within(t, "exit of an exec", func() error { b.wait("x"); return nil })
	b.liveOn(ctl, "hung kill")
	if r := ended(t, "kill", kill); r.err != nil {
		t.Errorf("kill: %v", r.err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.mustDelete("")
}

// Row 32: delete hangs. It is answered at its deadline and can be asked again.
func TestRow32HungDelete(t *testing.T) {
	deadlines(t, shortDeadline)
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{}, "sh", "-c", "exit 6")
	ctl.Become(t, change(fake.On(fake.Before(fake.Delete), fake.Hang().For(b.id).First("hang"))))
	b.create()
	b.start("")
	b.wait("")
	del := begin(func() (*task.DeleteResponse, error) { return b.del("") })
	ctl.Reached(t, fake.Before(fake.Delete), 1)
	b.answers()
	b.liveOn(ctl, "hung delete")
	second := begin(func() (*task.DeleteResponse, error) { return b.del("") })
	if r := ended(t, "delete", del); !isDeadline(r.err) {
		t.Errorf("delete: %v", r.err)
	}
	if r := ended(t, "the delete that joined it", second); r.err != nil && !isDeadline(r.err) {
		t.Errorf("the delete that joined it: %v", r.err)
	} else if r.err == nil {
		return // it came after, and did it
	}
	if st := b.state(""); st.Status != apitypes.Status_STOPPED || st.ExitStatus != 6 {
		t.Errorf("state %v", st)
	}
	if d := b.mustDelete(""); d.ExitStatus != 6 {
		t.Errorf("status %d", d.ExitStatus)
	}
}

// Row 32, W6, W13: pause, resume and update hang, and init dies meanwhile: its exit
// is told at once, for no runtime call runs on the way of an exit.
func TestRow32W6HungControl(t *testing.T) {
	deadlines(t, shortDeadline)
	calls := map[string]func(b *box) error{
		fake.Pause: func(b *box) error { _, err := b.Pause(context.Background(), &task.PauseRequest{ID: b.id}); return err },
		fake.Update: func(b *box) error {
			_, err := b.Update(context.Background(), &task.UpdateTaskRequest{ID: b.id, Resources: &anypb.Any{Value: []byte("{}")}})
			return err
		},
		fake.Checkpoint: func(b *box) error {
			ctx, cancel := context.WithTimeout(context.Background(), shortDeadline)
			defer cancel()
			_, err := b.Checkpoint(ctx, &task.CheckpointTaskRequest{ID: b.id, Path: b.dir + "/image"})
			return err
		},
	}
	for op, call := range calls {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			s := newShim(t)
			b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
			ctl.Become(t, change(fake.On(fake.Before(op), fake.Hang().For(b.id))))
			b.create()
			b.start("")
			hung := begin(func() (struct{}, error) { return struct{}{}, call(b) })
			ctl.Reached(t, fake.Before(op), 1)
			b.answers()
			b.liveOn(ctl, "hung "+op)
			within(t, "kill", func() error { return b.kill("", 9) })
			within(t, "init's exit", func() error { b.wait(""); return nil })
			pending(t, op, hung)
			// A call that outlived the delete would reach the next container of this id.
			within(t, "delete", func() error { _, err := b.del(""); return err })
			if r := ended(t, op, hung); !errdefs.IsFailedPrecondition(r.err) || isDeadline(r.err) {
				t.Errorf("%s: %v", op, r.err)
			}
		})
	}
}

// W6, I10: while one container's calls hang, the exits of many others are told.
func TestW6ExitsOfOthers(t *testing.T) {
	deadlines(t, shortDeadline)
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	ctl.Become(t, change(fake.On(fake.Before(fake.Update), fake.Hang().For(b.id))))
	b.create()
	b.start("")
	others := make([]*box, 8)
	for i := range others {
		others[i] = b.beside(ctl, "sleep", "1000")
		others[i].create()
		others[i].start("")
	}
	var hung sync.WaitGroup
	clients, leave := context.WithCancel(context.Background())
	defer leave()
	for range 40 { // more than upstream's channel holds
		hung.Go(func() {
			_, _ = b.Update(clients, &task.UpdateTaskRequest{ID: b.id, Resources: &anypb.Any{Value: []byte("{}")}})
		})
	}
	ctl.Reached(t, fake.Before(fake.Update), 1)
	began := time.Now()
	var wg sync.WaitGroup
	for _, o := range others {
		wg.Go(func() {
			if err := o.kill("", 9); err != nil {
				t.Error(err)
			}
			o.wait("")
		})
	}
	wg.Wait()
	if took := time.Since(began); took > shortDeadline {
		t.Errorf("it took %v", took)
	}
	b.answers()
	leave() // those that wait for their turn
	hung.Wait()
}
