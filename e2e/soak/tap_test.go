package soak

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	forward "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/larkshim/lark/internal/order"
)

// taker is a containerd that takes events, or refuses them.
type taker struct{ refuse error }

func (f *taker) Forward(context.Context, *forward.ForwardRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, f.refuse
}

// tapped is a tap between a taker and a shim's client.
type tapped struct {
	t        *testing.T
	tap      *tap
	taker    *taker
	told     []string
	problems []string
	client   *ttrpc.Client
}

func newTapped(t *testing.T) *tapped {
	t.Helper()
	dir := t.TempDir()
	x := &tapped{t: t, taker: &taker{}}
	l, err := net.Listen("unix", filepath.Join(dir, "containerd"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	forward.RegisterTTRPCEventsService(server, x.taker)
	go server.Serve(context.Background(), l)
	t.Cleanup(func() { server.Close() })
	x.tap = newTap(filepath.Join(dir, "tap"), l.Addr().String())
	x.tap.group = func(id string) string { return id[:1] }
	x.tap.told = func(e order.Event) { x.told = append(x.told, e.Container+" "+e.Kind.String()) }
	x.tap.problem = func(format string, args ...any) { x.problems = append(x.problems, fmt.Sprintf(format, args...)) }
	x.open()
	t.Cleanup(func() { x.tap.close() })
	return x
}

func (x *tapped) open() {
	x.t.Helper()
	if err := x.tap.open(); err != nil {
		x.t.Fatal(err)
	}
	conn, err := net.Dial("unix", x.tap.path)
	if err != nil {
		x.t.Fatal(err)
	}
	x.client = ttrpc.NewClient(conn)
}

// send sends an event as a shim does, the n-th of its kind.
func (x *tapped) send(m proto.Message, n int64) error {
	x.t.Helper()
	value, err := proto.Marshal(m)
	if err != nil {
		x.t.Fatal(err)
	}
	_, err = forward.NewTTRPCEventsClient(x.client).Forward(x.t.Context(), &forward.ForwardRequest{Envelope: &types.Envelope{
		Timestamp: timestamppb.New(time.Unix(1700000000, n)), Namespace: namespace, Topic: "/tasks/x",
		Event: &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: value},
	}})
	return err
}

var (
	create = &eventsapi.TaskCreate{ContainerID: "a1", Pid: 7}
	began  = &eventsapi.TaskStart{ContainerID: "a1", Pid: 7}
	exit   = &eventsapi.TaskExit{ContainerID: "a1", ID: "a1", Pid: 7}
	mate   = &eventsapi.TaskCreate{ContainerID: "a2", Pid: 8}
	other  = &eventsapi.TaskCreate{ContainerID: "b1", Pid: 9}
)

func (x *tapped) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *tapped) want(told ...string) {
	x.t.Helper()
	if !slices.Equal(x.told, told) {
		x.t.Errorf("told: %q, want %q", x.told, told)
	}
}

func TestARefusedEventComesAgainAndCountsOnce(t *testing.T) {
	x := newTapped(t)
	x.must(x.send(create, 1))
	x.taker.refuse = errors.New("not now")
	if x.send(began, 2) == nil {
		t.Error("what containerd has refused was answered as taken")
	}
	x.taker.refuse = nil
	x.must(x.send(other, 3)) // another shim goes its own way
	x.must(x.send(began, 2))
	x.must(x.send(exit, 4))
	x.want("a1 create", "b1 create", "a1 start", "a1 exit")
	if len(x.problems) > 0 || x.tap.failed != 1 || x.tap.repeated != 0 {
		t.Errorf("problems %q, %d refused, %d repeated", x.problems, x.tap.failed, x.tap.repeated)
	}
}

func TestARefusedEventMayNotBeOvertaken(t *testing.T) {
	x := newTapped(t)
	x.must(x.send(create, 1))
	x.taker.refuse = errors.New("not now")
	_ = x.send(began, 2)
	x.taker.refuse = nil
	x.must(x.send(mate, 3)) // of the same shim
	if len(x.problems) != 1 || !strings.Contains(x.problems[0], "went on with another") {
		t.Errorf("problems: %q", x.problems)
	}
}

func TestARepeatedEventCountsOnceOnlyNextToItself(t *testing.T) {
	x := newTapped(t)
	x.must(x.send(create, 1))
	x.must(x.send(began, 2))
	x.must(x.send(began, 2))
	x.want("a1 create", "a1 start")
	if x.tap.repeated != 1 {
		t.Errorf("%d repeated", x.tap.repeated)
	}
	x.must(x.send(exit, 3))
	x.must(x.send(began, 2)) // the checker of the order will have its say
	x.want("a1 create", "a1 start", "a1 exit", "a1 start")
}

func TestTheTapDiesWithContainerd(t *testing.T) {
	x := newTapped(t)
	x.must(x.send(create, 1))
	x.must(x.tap.close())
	if x.send(began, 2) == nil {
		t.Error("a dead tap has answered")
	}
	if _, err := net.Dial("unix", x.tap.path); err == nil {
		t.Error("a dead tap can be connected to")
	}
	x.open()
	x.must(x.send(began, 2))
	x.want("a1 create", "a1 start")
}
