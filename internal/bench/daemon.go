package bench

// The same shims behind a containerd: its gRPC API for containers and tasks, no more.

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/shimclient"
	"github.com/larkshim/lark/internal/spec"
)

// specType is the name by which containerd packs an OCI specification.
const specType = "types.containerd.io/opencontainers/runtime-spec/1/Spec"

// daemon drives one shim through a containerd.
type daemon struct {
	conn       *grpc.ClientConn
	containers containers.ContainersClient
	tasks      tasks.TasksClient
	shim       Shim
	rt         Runtime
	rootfs     string
	prefix     string // of all IDs
	count      atomic.Int64
}

// newDaemon connects; nothing is made yet.
func (b *bench) newDaemon(s Shim, rt Runtime) (*daemon, error) {
	address := b.cfg.Containerd
	if !strings.Contains(address, "://") {
		address = "unix://" + address
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	home := b.base.Dir[strings.LastIndexByte(b.base.Dir, '/')+1:]
	return &daemon{
		conn: conn, containers: containers.NewContainersClient(conn), tasks: tasks.NewTasksClient(conn),
		shim: s, rt: rt, rootfs: b.rootfs, prefix: fmt.Sprintf("%s-%d-", home, b.daemons.Add(1)),
	}, nil
}

// with puts the namespace into a call.
func (d *daemon) with(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
}

func (d *daemon) next() string { return d.prefix + strconv.FormatInt(d.count.Add(1), 10) }

// options name the runtime; its state lies where the shim's default is.
func (d *daemon) options() (*anypb.Any, error) {
	o := &options.Options{BinaryName: d.rt.Path}
	value, err := proto.Marshal(o)
	return &anypb.Any{TypeUrl: string(o.ProtoReflect().Descriptor().FullName()), Value: value}, err
}

// define makes the record of a container.
func (d *daemon) define(ctx context.Context, id string, args ...string) error {
	text, err := json.Marshal(spec.Default(spec.Options{Rootfs: d.rootfs, ReadOnly: true, Args: args, Cgroup: "/" + id}))
	if err != nil {
		return err
	}
	opts, err := d.options()
	if err != nil {
		return err
	}
	_, err = d.containers.Create(d.with(ctx), &containers.CreateContainerRequest{Container: &containers.Container{
		ID:      id,
		Runtime: &containers.Container_Runtime{Name: d.shim.Path, Options: opts},
		Spec:    &anypb.Any{TypeUrl: specType, Value: text},
	}})
	return err
}

// up creates and starts the task of a container that is defined.
func (d *daemon) up(ctx context.Context, id string) error {
	opts, err := d.options()
	if err != nil {
		return err
	}
	if _, err := d.tasks.Create(d.with(ctx), &tasks.CreateTaskRequest{ContainerID: id, Options: opts}); err != nil {
		return err
	}
	_, err = d.tasks.Start(d.with(ctx), &tasks.StartRequest{ContainerID: id})
	return err
}

// task takes one container's task from Create to Delete.
func (d *daemon) task(ctx context.Context, id string) error {
	if err := d.up(ctx, id); err != nil {
		return err
	}
	if _, err := d.tasks.Wait(d.with(ctx), &tasks.WaitRequest{ContainerID: id}); err != nil {
		return err
	}
	_, err := d.tasks.Delete(d.with(ctx), &tasks.DeleteTaskRequest{ContainerID: id})
	return err
}

// exec takes one exec from Exec to Delete.
func (d *daemon) exec(ctx context.Context, id string, process *anypb.Any) error {
	exec := "e" + strconv.FormatInt(d.count.Add(1), 10)
	if _, err := d.tasks.Exec(d.with(ctx), &tasks.ExecProcessRequest{ContainerID: id, ExecID: exec, Spec: process}); err != nil {
		return err
	}
	if _, err := d.tasks.Start(d.with(ctx), &tasks.StartRequest{ContainerID: id, ExecID: exec}); err != nil {
		return err
	}
	if _, err := d.tasks.Wait(d.with(ctx), &tasks.WaitRequest{ContainerID: id, ExecID: exec}); err != nil {
		return err
	}
	_, err := d.tasks.DeleteProcess(d.with(ctx), &tasks.DeleteProcessRequest{ContainerID: id, ExecID: exec})
	return err
}

// forget removes a container with whatever is left of its task. Failing calls are the
// normal case where there is nothing left; the last one must succeed.
func (d *daemon) forget(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), helperTimeout)
	defer cancel()
	if _, err := d.tasks.Kill(d.with(ctx), &tasks.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL), All: true}); err == nil {
		_, _ = d.tasks.Wait(d.with(ctx), &tasks.WaitRequest{ContainerID: id})
	}
	_, _ = d.tasks.Delete(d.with(ctx), &tasks.DeleteTaskRequest{ContainerID: id})
	_, err := d.containers.Delete(d.with(ctx), &containers.DeleteContainerRequest{ID: id})
	return err
}

// process packs the process of an exec.
func (d *daemon) process(args ...string) (*anypb.Any, error) {
	return shimclient.ProcessSpec(spec.Default(spec.Options{Args: args}).Process)
}
