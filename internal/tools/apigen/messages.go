package main

import (
	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/events"
	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v2"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	forward "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	runc "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	process "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/ttrpc"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// output is a generated file.
type output struct {
	name     string // below internal/api
	pkg      string
	messages []proto.Message
}

// outputs are the files with the messages that the shim reads or writes. A
// message that one of them refers to is in the same package.
var outputs = []output{
	{"known.gen.go", "api", some(&anypb.Any{}, &emptypb.Empty{}, &timestamppb.Timestamp{})},
	{"ttrpc.gen.go", "api", some(&ttrpc.Request{}, &ttrpc.Response{}, &ttrpc.KeyValue{}, &status.Status{})},
	{"task.gen.go", "api", whole(&task.StateRequest{})},
	{"types.gen.go", "api", some(&types.Mount{}, &process.ProcessInfo{}, &types.RuntimeRequest{}, &types.RuntimeInfo{}, &types.RuntimeVersion{})},
	{"options.gen.go", "api", append(whole(&runc.Options{}), &runtimeoptions.Options{})},
	{"bootstrap.gen.go", "api", whole(&bootstrap.BootstrapParams{})},
	{"events.gen.go", "api", append(whole(&events.TaskCreate{}), &types.Envelope{}, &forward.ForwardRequest{})},
	{"cgroup1/stats.gen.go", "cgroup1", whole(&cgroup1.Metrics{})},
	{"cgroup2/stats.gen.go", "cgroup2", whole(&cgroup2.Metrics{})},
}

// twins are messages that are the same as one of the outputs under another name.
// They are only compared.
var twins = whole(&taskv3.StateRequest{})

// renamed are the messages whose official Go name is ambiguous in package api.
var renamed = map[protoreflect.FullName]string{
	"google.rpc.Status":         "RPCStatus",
	"runtimeoptions.v1.Options": "RuntimeOptions",
}

// aliased are the bytes fields that share memory with the input of Unmarshal.
var aliased = map[protoreflect.FullName]bool{
	"ttrpc.Request.payload":  true,
	"ttrpc.Response.payload": true,
}

func some(m ...proto.Message) []proto.Message { return m }

// whole returns the messages of the file that declares m.
func whole(m proto.Message) []proto.Message {
	var found []proto.Message
	declared := m.ProtoReflect().Descriptor().ParentFile().Messages()
	for i := range declared.Len() {
		t, err := protoregistry.GlobalTypes.FindMessageByName(declared.Get(i).FullName())
		if err != nil {
			panic(err) // a linked Go package registers all its messages
		}
		found = append(found, t.New().Interface())
	}
	return found
}
