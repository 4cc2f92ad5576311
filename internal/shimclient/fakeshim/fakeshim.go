// Package fakeshim is a shim that does as a test tells it. A test binary becomes one:
// its TestMain calls Main, which does not return when the process was started as a shim.
// The scenario is a word in the environment.
package fakeshim

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	forward "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Env is the environment variable that names the scenario. A process in whose
// environment it is set is a shim.
const Env = "LARK_FAKE_SHIM"

// The scenarios. The first three differ in how `start` answers; the others answer JSON.
const (
	Address = "address" // as 1.6
	JSON    = "json"    // as 2.0
	Proto   = "proto"   // as 2.4, and refuses input that is not BootstrapParams

	Garbage      = "garbage"        // answers with what is no answer
	Fails        = "fails"          // `start` begins a server and then fails
	Hangs        = "hangs"          // `start` begins a server and then hangs
	Dumb         = "dumb"           // the server never answers a call
	Stubborn     = "stubborn"       // the server ignores Shutdown and SIGTERM
	OptionsOnly  = "options-only"   // refuses BootstrapParams, as 1.6 and 1.7 do
	WrongOrder   = "wrong-order"    // sends the exit before the start
	NoExit       = "no-exit"        // never sends the exit
	DiesInCreate = "dies-in-create" // the server ends during Create
)

// Status is what every process of a fake shim ends with.
const Status = 7

// Main becomes the shim, if the process was started as one.
func Main() {
	scenario := os.Getenv(Env)
	if scenario == "" {
		return
	}
	f := flag.NewFlagSet("shim", flag.ExitOnError)
	namespace := f.String("namespace", "", "")
	id := f.String("id", "", "")
	f.String("address", "", "")
	f.String("publish-binary", "", "")
	f.String("bundle", "", "")
	f.Bool("debug", false, "")
	if err := f.Parse(os.Args[1:]); err != nil {
		os.Exit(2)
	}
	var err error
	switch f.Arg(0) {
	case "start":
		err = start(scenario, *id, *namespace)
	case "delete":
		err = remove()
	default:
		err = serve(scenario, *namespace)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func start(scenario, id, namespace string) error {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if err := checkInput(scenario, in, id, namespace); err != nil {
		return err
	}
	socket, err := filepath.Abs("shim.sock")
	if err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	file, err := l.File()
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", "-namespace", namespace, "-id", id)
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	switch scenario {
	case Fails:
		return fmt.Errorf("the fake shim was told to fail")
	case Hangs:
		select {}
	}
	return answer(scenario, "unix://"+socket)
}

// checkInput holds the client to what a shim of the scenario's age is given.
func checkInput(scenario string, in []byte, id, namespace string) error {
	var p bootapi.BootstrapParams
	isParams := proto.Unmarshal(in, &p) == nil && p.InstanceID == id && p.Namespace == namespace
	switch {
	case scenario == Proto && !isParams:
		return fmt.Errorf("no BootstrapParams for %s on standard input", id)
	case scenario == OptionsOnly && isParams:
		return fmt.Errorf("type with url %s: not found", id)
	case scenario == Address && len(in) != 0:
		return fmt.Errorf("%d bytes on standard input", len(in))
	case os.Getenv("TTRPC_ADDRESS") == "" || os.Getenv("NAMESPACE") != namespace:
		return fmt.Errorf("the environment lacks something")
	}
	return nil
}

func answer(scenario, address string) error {
	var text []byte
	var err error
	switch scenario {
	case Address:
		text = []byte(address)
	case Garbage:
		text = []byte("time=now level=warning")
	case Proto:
		text, err = proto.Marshal(&bootapi.BootstrapResult{Version: 3, Address: address, Protocol: "ttrpc"})
	default:
		text, err = json.Marshal(map[string]any{"version": 3, "address": address, "protocol": "ttrpc"})
	}
	if err == nil {
		_, err = os.Stdout.Write(text)
	}
	return err
}

func remove() error {
	text, err := proto.Marshal(&taskapi.DeleteResponse{ExitStatus: 137, ExitedAt: timestamppb.Now()})
	if err == nil {
		_, err = io.Copy(os.Stdout, bytes.NewReader(text))
	}
	return err
}

// server is the fake's task service: one container whose init ends as soon as it is
// started. Methods that no test needs are unimplemented.
type server struct {
	scenario, namespace string
	events              forward.TTRPCEventsService

	mu    sync.Mutex
	id    string
	ended *timestamppb.Timestamp
	over  chan struct{} // closed when init has ended
}

func serve(scenario, namespace string) error {
	const listenerFd = 3
	l, err := net.FileListener(os.NewFile(listenerFd, "listener"))
	if err != nil {
		return err
	}
	if scenario == Dumb {
		select {}
	}
	conn, err := net.Dial("unix", os.Getenv("TTRPC_ADDRESS"))
	if err != nil {
		return err
	}
	s := &server{scenario: scenario, namespace: namespace, over: make(chan struct{}), events: forward.NewTTRPCEventsClient(ttrpc.NewClient(conn))}
	t, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	for _, version := range []string{"v2", "v3"} {
		t.RegisterService("containerd.task."+version+".Task", &ttrpc.ServiceDesc{Methods: s.methods()})
	}
	return t.Serve(context.Background(), l)
}

// method adapts a typed method.
func method[Req any, P interface {
	*Req
	proto.Message
}](fn func(context.Context, P) (proto.Message, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		req := P(new(Req))
		if err := unmarshal(req); err != nil {
			return nil, err
		}
		return fn(ctx, req)
	}
}

func (s *server) methods() map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		"Connect": method(func(context.Context, *taskapi.ConnectRequest) (proto.Message, error) {
			return &taskapi.ConnectResponse{ShimPid: uint32(os.Getpid())}, nil
		}),
		"Create": method(s.create),
		"Start":  method(s.start),
		"Wait":   method(s.wait),
		"Delete": method(s.delete),
		"Kill":   method(func(context.Context, *taskapi.KillRequest) (proto.Message, error) { return &emptypb.Empty{}, nil }),
		"Shutdown": method(func(context.Context, *taskapi.ShutdownRequest) (proto.Message, error) {
			if s.scenario != Stubborn {
				const answerFirst = 10 * time.Millisecond
				time.AfterFunc(answerFirst, func() { os.Exit(0) })
			}
			return &emptypb.Empty{}, nil
		}),
	}
}

const initPid = 4242

func (s *server) create(ctx context.Context, r *taskapi.CreateTaskRequest) (proto.Message, error) {
	if s.scenario == DiesInCreate {
		os.Exit(1)
	}
	s.id = r.ID
	return &taskapi.CreateTaskResponse{Pid: initPid}, s.send(ctx, "create", &eventsapi.TaskCreate{ContainerID: r.ID, Pid: initPid})
}

func (s *server) start(ctx context.Context, r *taskapi.StartRequest) (proto.Message, error) {
	s.mu.Lock()
	s.ended = timestamppb.Now()
	s.mu.Unlock()
	started := func() error { return s.send(ctx, "start", &eventsapi.TaskStart{ContainerID: r.ID, Pid: initPid}) }
	exited := func() error {
		return s.send(ctx, "exit", &eventsapi.TaskExit{ContainerID: r.ID, ID: r.ID, Pid: initPid, ExitStatus: Status, ExitedAt: s.ended})
	}
	steps := []func() error{started, exited}
	switch s.scenario {
	case WrongOrder:
		steps = []func() error{exited, started}
	case NoExit:
		steps = steps[:1]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	close(s.over)
	return &taskapi.StartResponse{Pid: initPid}, nil
}

func (s *server) wait(context.Context, *taskapi.WaitRequest) (proto.Message, error) {
	<-s.over
	return &taskapi.WaitResponse{ExitStatus: Status, ExitedAt: s.ended}, nil
}

func (s *server) delete(ctx context.Context, r *taskapi.DeleteRequest) (proto.Message, error) {
	err := s.send(ctx, "delete", &eventsapi.TaskDelete{ContainerID: r.ID, Pid: initPid, ExitStatus: Status, ExitedAt: s.ended})
	return &taskapi.DeleteResponse{Pid: initPid, ExitStatus: Status, ExitedAt: s.ended}, err
}

func (s *server) send(ctx context.Context, topic string, m proto.Message) error {
	value, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = s.events.Forward(ctx, &forward.ForwardRequest{Envelope: &types.Envelope{
		Timestamp: timestamppb.Now(), Namespace: s.namespace, Topic: "/tasks/" + topic,
		Event: &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: value},
	}})
	return err
}
