package api_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/larkshim/lark/internal/api"
)

// common are messages of an exec's way: its request, its events and their
// envelope.
var common = []api.Message{
	&api.StartRequest{ID: "4f1c2d", ExecID: "e1"},
	&api.ExecProcessRequest{ID: "4f1c2d", ExecID: "e1", Stdout: "/run/containerd/fifo/1/e1-stdout", Stderr: "/run/containerd/fifo/1/e1-stderr", Spec: &api.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: make([]byte, 1500)}},
	&api.TaskExit{ContainerID: "4f1c2d", ID: "e1", Pid: 4711, ExitStatus: 1, ExitedAt: api.NewTimestamp(time.Unix(1700000000, 12345))},
	&api.ForwardRequest{Envelope: &api.Envelope{Timestamp: api.NewTimestamp(time.Unix(1700000000, 12345)), Namespace: "k8s.io", Topic: "/tasks/exit", Event: &api.Any{TypeUrl: "containerd.events.TaskExit", Value: make([]byte, 40)}}},
	&api.StateResponse{ID: "4f1c2d", Bundle: "/run/containerd/io.containerd.runtime.v2.task/k8s.io/4f1c2d", Pid: 4711, Status: api.StatusRunning, Stdout: "/run/containerd/fifo/1/stdout", ExitedAt: &api.Timestamp{}},
}

// official returns the official message that has the values of m.
func official(t testing.TB, m api.Message) proto.Message {
	for _, p := range pairs {
		if p.ours.FullName() != m.FullName() {
			continue
		}
		b, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		o := p.official.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(b, o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	t.Fatalf("%s has no official twin", m.FullName())
	return nil
}

// Append makes no garbage, and Unmarshal no more than the official messages.
func TestAllocations(t *testing.T) {
	buf := make([]byte, 0, 4096)
	for _, m := range common {
		if n := testing.AllocsPerRun(100, func() { _, _ = m.Append(buf) }); n != 0 {
			t.Errorf("%s: Append allocates %v times", m.FullName(), n)
		}
		b, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		o := official(t, m)
		ours := testing.AllocsPerRun(100, func() { _ = m.Unmarshal(b) })
		if theirs := testing.AllocsPerRun(100, func() { _ = proto.Unmarshal(b, o) }); ours > theirs {
			t.Errorf("%s: Unmarshal allocates %v times, officially %v", m.FullName(), ours, theirs)
		}
	}
}

// BenchmarkMessages writes and reads the common messages, and gives the time as a
// ratio to that of the official ones.
func BenchmarkMessages(b *testing.B) {
	for _, m := range common {
		o := official(b, m)
		text, err := m.Marshal()
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 0, len(text))
		b.Run(string(o.ProtoReflect().Descriptor().Name())+"/write", func(b *testing.B) {
			ratio(b, func() { _, _ = m.Append(buf) }, func() { _, _ = proto.MarshalOptions{}.MarshalAppend(buf, o) })
		})
		b.Run(string(o.ProtoReflect().Descriptor().Name())+"/read", func(b *testing.B) {
			ratio(b, func() { _ = m.Unmarshal(text) }, func() { _ = proto.Unmarshal(text, o) })
		})
	}
}

// ratio times both in turns, so that a busy machine slows both down.
func ratio(b *testing.B, ours, theirs func()) {
	b.ReportAllocs()
	const turn = 1 << 15
	var mine, other time.Duration
	for left := b.N; left > 0; left -= turn {
		start := time.Now()
		for range min(left, turn) {
			ours()
		}
		middle := time.Now()
		b.StopTimer()
		for range min(left, turn) {
			theirs()
		}
		mine += middle.Sub(start)
		other += time.Since(middle)
		b.StartTimer()
	}
	b.ReportMetric(float64(mine)/float64(other), "ratio")
}
