package daemon

// containerd's own gRPC services, without the heavy client: what a test asks
// is one call, and its answer is seen as it is.

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs/pkg/errgrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// namespaceHeader carries containerd's namespace in gRPC metadata.
const namespaceHeader = "containerd-namespace"

// Client makes calls to one daemon in one namespace. Errors are of errdefs'
// classes. It may be used from many goroutines, and after Restart.
type Client struct {
	d          *Daemon
	ns         string
	Containers containersapi.ContainersClient
	Tasks      tasksapi.TasksClient
	Events     eventsapi.EventsClient
}

// Client returns a client in the namespace, which it makes if need be.
func (d *Daemon) Client(ctx context.Context, namespace string) (*Client, error) {
	c := &Client{
		d: d, ns: namespace,
		Containers: containersapi.NewContainersClient(d.conn),
		Tasks:      tasksapi.NewTasksClient(d.conn),
		Events:     eventsapi.NewEventsClient(d.conn),
	}
	n := namespacesapi.NewNamespacesClient(d.conn)
	if _, err := n.Get(ctx, &namespacesapi.GetNamespaceRequest{Name: namespace}); err == nil {
		return c, nil
	}
	_, err := n.Create(ctx, &namespacesapi.CreateNamespaceRequest{Namespace: &namespacesapi.Namespace{Name: namespace}})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	return c, nil
}

// Namespace is the client's namespace.
func (c *Client) Namespace() string { return c.ns }

// In puts the client's namespace into ctx, for calls on its services.
func (c *Client) In(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, namespaceHeader, c.ns)
}

// Runtime names a shim and the options it is given.
type Runtime struct {
	// Name is as "io.containerd.lark.v2", or an absolute path of a shim.
	Name string
	// Options, nil for none. See Runc.
	Options proto.Message
}

// Runc gives options for the runtime name that keep the OCI runtime's state
// under the daemon's directory; binary is the OCI runtime, "" for the default.
func (d *Daemon) Runc(name, binary string) Runtime {
	return Runtime{Name: name, Options: &runcoptions.Options{BinaryName: binary, Root: d.RuncRoot()}}
}

// CreateContainer makes the container's record.
func (c *Client) CreateContainer(ctx context.Context, id string, rt Runtime, s *specs.Spec) error {
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	record := &containersapi.Container{
		ID:      id,
		Runtime: &containersapi.Container_Runtime{Name: rt.Name},
		Spec:    &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: value},
	}
	if rt.Options != nil {
		if record.Runtime.Options, err = typed(rt.Options); err != nil {
			return err
		}
	}
	c.d.Made(c.ns, id)
	_, err = c.Containers.Create(c.In(ctx), &containersapi.CreateContainerRequest{Container: record})
	return errgrpc.ToNative(err)
}

// typed is an Any as containerd writes it: the bare message name, no host.
func typed(m proto.Message) (*anypb.Any, error) {
	value, err := proto.Marshal(m)
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: value}, err
}

// DeleteContainer removes the container's record.
func (c *Client) DeleteContainer(ctx context.Context, id string) error {
	_, err := c.Containers.Delete(c.In(ctx), &containersapi.DeleteContainerRequest{ID: id})
	return errgrpc.ToNative(err)
}

// Stdio are the paths or URIs of a process's streams; empty is none.
type Stdio struct {
	Stdin, Stdout, Stderr string
	Terminal              bool
}

// BindRootfs is a rootfs mount of dir itself, which many containers may share.
func BindRootfs(dir string) []*types.Mount {
	return []*types.Mount{{Type: "bind", Source: dir, Options: []string{"rbind", "ro"}}}
}

// OverlayRootfs is a writable rootfs over lower; upper and work are directories
// of the container's own.
func OverlayRootfs(lower, upper, work string) []*types.Mount {
	return []*types.Mount{{Type: "overlay", Source: "overlay",
		Options: []string{"lowerdir=" + lower, "upperdir=" + upper, "workdir=" + work}}}
}

// CreateTask makes the task of a container and returns the pid of its init.
func (c *Client) CreateTask(ctx context.Context, id string, rootfs []*types.Mount, io Stdio) (uint32, error) {
	resp, err := c.Tasks.Create(c.In(ctx), &tasksapi.CreateTaskRequest{
		ContainerID: id, Rootfs: rootfs,
		Stdin: io.Stdin, Stdout: io.Stdout, Stderr: io.Stderr, Terminal: io.Terminal,
	})
	return resp.GetPid(), errgrpc.ToNative(err)
}

// Start starts the init, or the exec when exec is not empty.
func (c *Client) Start(ctx context.Context, id, exec string) (uint32, error) {
	resp, err := c.Tasks.Start(c.In(ctx), &tasksapi.StartRequest{ContainerID: id, ExecID: exec})
	return resp.GetPid(), errgrpc.ToNative(err)
}

// Exec adds a process to the task; Start starts it.
func (c *Client) Exec(ctx context.Context, id, exec string, p *specs.Process, io Stdio) error {
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = c.Tasks.Exec(c.In(ctx), &tasksapi.ExecProcessRequest{
		ContainerID: id, ExecID: exec,
		Stdin: io.Stdin, Stdout: io.Stdout, Stderr: io.Stderr, Terminal: io.Terminal,
		Spec: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: value},
	})
	return errgrpc.ToNative(err)
}

// Kill signals the init or an exec; all means every process of the container.
func (c *Client) Kill(ctx context.Context, id, exec string, signal uint32, all bool) error {
	_, err := c.Tasks.Kill(c.In(ctx), &tasksapi.KillRequest{ContainerID: id, ExecID: exec, Signal: signal, All: all})
	return errgrpc.ToNative(err)
}

// Exit is what Wait and Delete answer of a process.
type Exit struct {
	Pid    uint32 // of Delete only
	Status uint32
	At     time.Time // zero where the answer had none
}

// Wait waits for the end of the init or an exec.
func (c *Client) Wait(ctx context.Context, id, exec string) (Exit, error) {
	resp, err := c.Tasks.Wait(c.In(ctx), &tasksapi.WaitRequest{ContainerID: id, ExecID: exec})
	if err != nil {
		return Exit{}, errgrpc.ToNative(err)
	}
	return Exit{Status: resp.ExitStatus, At: resp.ExitedAt.AsTime()}, nil
}

// Delete removes the task, or one exec of it.
func (c *Client) Delete(ctx context.Context, id, exec string) (Exit, error) {
	var resp *tasksapi.DeleteResponse
	var err error
	if exec == "" {
		resp, err = c.Tasks.Delete(c.In(ctx), &tasksapi.DeleteTaskRequest{ContainerID: id})
	} else {
		resp, err = c.Tasks.DeleteProcess(c.In(ctx), &tasksapi.DeleteProcessRequest{ContainerID: id, ExecID: exec})
	}
	if err != nil {
		return Exit{}, errgrpc.ToNative(err)
	}
	return Exit{Pid: resp.Pid, Status: resp.ExitStatus, At: resp.ExitedAt.AsTime()}, nil
}

// Status is the state of the init or an exec.
func (c *Client) Status(ctx context.Context, id, exec string) (*tasktypes.Process, error) {
	resp, err := c.Tasks.Get(c.In(ctx), &tasksapi.GetRequest{ContainerID: id, ExecID: exec})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	if resp.Process == nil {
		return nil, fmt.Errorf("task %s: no process in the answer", id)
	}
	return resp.Process, nil
}
