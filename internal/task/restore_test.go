package task

// Checkpoint and restore, with a runtime that plays them: CRIU cannot dump everywhere.

import (
	"slices"
	"testing"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

func (b *box) checkpoint(exit bool) error {
	b.t.Helper()
	value, err := proto.Marshal(&options.CheckpointOptions{Exit: exit})
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = b.Checkpoint(b.t.Context(), &task.CheckpointTaskRequest{ID: b.id, Path: b.dir + "/image",
		Options: &anypb.Any{TypeUrl: "containerd.runc.v1.CheckpointOptions", Value: value}})
	return err
}

// A checkpoint that does not leave the task running ends it: the exit is announced as
// any other, and a restored container's init is the shim's child, with a cgroup (W5).
func TestW5CheckpointAndRestore(t *testing.T) {
	s := newShim(t)
	b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
	b.create()
	b.start("")
	if err := b.checkpoint(false); err != nil {
		t.Fatal(err)
	}
	if st := b.state(""); st.Status != apitypes.Status_RUNNING {
		t.Errorf("left running, it is %v", st.Status)
	}
	if err := b.checkpoint(true); err != nil {
		t.Fatal(err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.is(order.Exited, "")
	b.mustDelete("")

	r := b.beside(ctl, "sleep", "1000")
	r.request.Checkpoint = b.dir + "/image"
	if pid := r.create(); pid != 0 {
		t.Errorf("a process %d before the restore", pid)
	}
	if st := r.state(""); st.Status != apitypes.Status_CREATED {
		t.Errorf("state %v", st.Status)
	}
	if _, err := r.Stats(t.Context(), &task.StatsRequest{ID: r.id}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("stats before the restore: %v", err)
	}
	pid := r.start("")
	if pid == 0 || r.state("").Pid != pid {
		t.Errorf("pid %d, state %v", pid, r.state(""))
	}
	r.answers()
	p, err := r.Pids(t.Context(), &task.PidsRequest{ID: r.id})
	if err != nil || len(p.Processes) != 1 || p.Processes[0].Pid != pid {
		t.Errorf("pids %v, %v", p, err)
	}
	if err := r.kill("", 9); err != nil {
		t.Error(err)
	}
	if status := r.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	r.mustDelete("")
	r.is(order.Deleted, "")
	if got := r.kinds(r.id); !slices.Equal(got, []order.Kind{order.Created, order.Started, order.Exited, order.Deleted}) {
		t.Errorf("events %v", got)
	}
}

// A restore that fails, before and after its fork, leaves a container that can only be
// deleted, and no process.
func TestRow33RestoreThatFails(t *testing.T) {
	for name, step := range map[string]fake.Profile{
		"refused": fake.On(fake.Before(fake.Restore), fake.Fail("criu is not in the mood")),
		"crashed": fake.On(fake.Forked(fake.Restore), fake.Crash(9)),
		"lied":    fake.On(fake.Forked(fake.Restore), fake.PidFile("-1")),
	} {
		t.Run(name, func(t *testing.T) {
			s := newShim(t)
			b, ctl := s.scripted(nil, fake.Profile{}, "sleep", "1000")
			b.create()
			b.start("")
			if err := b.checkpoint(true); err != nil {
				t.Fatal(err)
			}
			b.wait("")
			b.mustDelete("")
			ctl.Become(t, change(step))
			r := b.beside(ctl, "sleep", "1000")
			r.request.Checkpoint = b.dir + "/image"
			r.create()
			wait := r.beginWait("")
			if res := ended(t, "start", r.beginStart("")); res.err == nil {
				t.Error("it was restored")
			}
			if w := ended(t, "wait", wait); !errdefs.IsFailedPrecondition(w.err) {
				t.Errorf("wait: %v, %v", w.answer, w.err)
			}
			gone(t, ctl)
			r.mustDelete("")
			for _, dir := range cgroupsOf(r.id) {
				t.Errorf("%s is left", dir)
			}
		})
	}
}
