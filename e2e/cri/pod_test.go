package cri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/e2e/registry"
	"github.com/larkshim/lark/e2e/suite"
)

const (
	image = "ghcr.io/containerd/busybox:1.36"
	// callLimit: no call of the tests takes longer on a loaded machine, unless it hangs.
	callLimit = 2 * time.Minute
	poll      = 50 * time.Millisecond
	authority = "/tmp/registry-ca.pem"
)

// handlers are the runtime handlers of the configuration below. CRI hands options to io.containerd.runc.v2 as they are,
// and to runtimes of any other name as TOML within runtimeoptions.v1, so both ways are tried.
var handlers = map[string]string{"runc": suite.RuncRuntime, "lark": suite.LarkRuntime}

// configuration: without CAP_SYS_RESOURCE, as in many containers that run tests, a pause process cannot have the score of
// -998 that CRI wants for it, hence restrict_oom_score_adj.
const configuration = `
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.lark]
      runtime_type = "io.containerd.lark.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.lark.options]
        BinaryName = "runc"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "registry.k8s.io/pause:3.10.2"
`

// node is what all tests share: a containerd with the CRI plugin. A pod belongs to a test.
var node struct {
	containerd *daemon.Daemon
	runtime    api.RuntimeServiceClient
	images     api.ImageServiceClient
}

func TestMain(m *testing.M) {
	os.Exit(suite.Main(testMain{m}, suite.Needs{
		Programs: []string{"runc", "busybox"},
		Peers:    []string{"containerd-" + daemon.Containerd24},
	}))
}

// testMain starts containerd before the tests, inside the sandbox.
type testMain struct{ *testing.M }

func (m testMain) Run() int {
	ctx := context.Background()
	status, err := m.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		status = 1
	}
	if node.containerd != nil {
		if status != 0 {
			fmt.Fprintf(os.Stderr, "the end of containerd's log:\n%s\n", node.containerd.Log())
		}
		if err := node.containerd.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "cri:", err)
			status = 1
		}
	}
	return status
}

func (m testMain) run(ctx context.Context) (int, error) {
	busybox, err := registry.OpenBusybox(registry.BusyboxPath)
	if err != nil {
		return 0, err
	}
	server, err := registry.Serve(ctx, registry.Address, registry.ContainerdImages(busybox))
	if err != nil {
		return 0, err
	}
	defer server.Close()
	if err := server.WriteCA(authority); err != nil {
		return 0, err
	}
	if err := startNode(ctx); err != nil {
		return 0, err
	}
	pulling, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if _, err := node.images.PullImage(pulling, &api.PullImageRequest{Image: &api.ImageSpec{Image: image}}); err != nil {
		return 0, err
	}
	return m.M.Run(), nil
}

func startNode(ctx context.Context) error {
	containerd, err := daemon.Start(ctx, daemon.Config{
		Binary:  filepath.Join(daemon.Built(daemon.Containerd24), "containerd"),
		ShimDir: suite.Bin(),
		CRI:     true,
		Extra:   configuration,
		Env:     []string{"SSL_CERT_FILE=" + authority},
		Debug:   true,
	})
	if err != nil {
		return err
	}
	node.containerd = containerd
	connection, err := grpc.NewClient("unix://"+containerd.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return err
	}
	node.runtime, node.images = api.NewRuntimeServiceClient(connection), api.NewImageServiceClient(connection)
	return ready(ctx)
}

// ready waits until the CRI plugin serves: it begins to when containerd does, and says Unavailable until it is done.
func ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	for {
		answer, err := node.runtime.Status(ctx, &api.StatusRequest{})
		switch {
		case err == nil && slices.ContainsFunc(answer.Status.Conditions, func(c *api.RuntimeCondition) bool { return c.Type == api.RuntimeReady && c.Status }):
			return nil
		case err != nil && grpcstatus.Code(err) != codes.Unavailable:
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("the CRI plugin is not ready: %w", ctx.Err())
		}
		time.Sleep(poll)
	}
}

// eachHandler runs a test with every runtime handler.
func eachHandler(t *testing.T, test func(t *testing.T, handler string)) {
	for handler := range handlers {
		t.Run(handler, func(t *testing.T) { test(t, handler) })
	}
}

// must makes a call and returns its answer.
func must[Request, Response any](t *testing.T, call func(context.Context, Request, ...grpc.CallOption) (Response, error), request Request) Response {
	t.Helper()
	// Cleanups call too, after t's own context has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), callLimit)
	defer cancel()
	response, err := call(ctx, request)
	if err != nil {
		t.Fatalf("%T: %v", request, err)
	}
	return response
}

// pod is a running sandbox.
type pod struct {
	id     string
	config *api.PodSandboxConfig
}

// newPod runs a pod and removes it after the test.
func newPod(t *testing.T, handler string, pid api.NamespaceMode) *pod {
	t.Helper()
	name := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	p := &pod{config: &api.PodSandboxConfig{
		Metadata:     &api.PodSandboxMetadata{Name: name, Uid: name, Namespace: "tests"},
		LogDirectory: t.TempDir(),
		Linux: &api.LinuxPodSandboxConfig{
			CgroupParent: "/pods/" + name,
			SecurityContext: &api.LinuxSandboxSecurityContext{
				NamespaceOptions: &api.NamespaceOption{Network: api.NamespaceMode_NODE, Pid: pid},
			},
		},
	}}
	p.id = must(t, node.runtime.RunPodSandbox, &api.RunPodSandboxRequest{Config: p.config, RuntimeHandler: handler}).PodSandboxId
	t.Cleanup(func() { p.remove(t) })
	return p
}

// remove does as the kubelet does. Both calls are idempotent.
func (p *pod) remove(t *testing.T) {
	t.Helper()
	must(t, node.runtime.StopPodSandbox, &api.StopPodSandboxRequest{PodSandboxId: p.id})
	must(t, node.runtime.RemovePodSandbox, &api.RemovePodSandboxRequest{PodSandboxId: p.id})
}

// create makes a container in the pod that runs script in a shell.
func (p *pod) create(t *testing.T, name, script string, vary ...func(*api.ContainerConfig)) string {
	t.Helper()
	config := &api.ContainerConfig{
		Metadata: &api.ContainerMetadata{Name: name},
		Image:    &api.ImageSpec{Image: image},
		Command:  []string{"sh", "-c", script},
		LogPath:  name + ".log",
		Linux: &api.LinuxContainerConfig{
			Resources:       &api.LinuxContainerResources{},
			SecurityContext: &api.LinuxContainerSecurityContext{NamespaceOptions: p.config.Linux.SecurityContext.NamespaceOptions},
		},
	}
	for _, v := range vary {
		v(config)
	}
	return must(t, node.runtime.CreateContainer, &api.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config}).ContainerId
}

// run makes a container and starts it.
func (p *pod) run(t *testing.T, name, script string, vary ...func(*api.ContainerConfig)) string {
	t.Helper()
	id := p.create(t, name, script, vary...)
	must(t, node.runtime.StartContainer, &api.StartContainerRequest{ContainerId: id})
	return id
}

// memory limits a container's memory, with no swap.
func memory(bytes int64) func(*api.ContainerConfig) {
	return func(c *api.ContainerConfig) {
		c.Linux.Resources.MemoryLimitInBytes, c.Linux.Resources.MemorySwapLimitInBytes = bytes, bytes
	}
}

// log is what containers of the pod have printed, as the kubelet finds it, without its first three columns.
func (p *pod) log(t *testing.T, name string) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(p.config.LogDirectory, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		columns := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4) // time, stream, F or P, text
		if len(columns) != 4 {
			t.Fatalf("%s.log: %q", name, line)
		}
		lines = append(lines, columns[1]+": "+columns[3])
	}
	return lines
}

func status(t *testing.T, id string) *api.ContainerStatus {
	t.Helper()
	return must(t, node.runtime.ContainerStatus, &api.ContainerStatusRequest{ContainerId: id}).Status
}

// exited waits until a container has exited.
func exited(t *testing.T, id string) *api.ContainerStatus {
	t.Helper()
	var s *api.ContainerStatus
	eventually(t, "container "+id+" has not exited", func() bool {
		s = status(t, id)
		return s.State == api.ContainerState_CONTAINER_EXITED
	})
	return s
}

// eventually polls, for at most callLimit.
func eventually(t *testing.T, otherwise string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(callLimit); !ok(); time.Sleep(poll) {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}

// exec runs a script in a container, as an exec probe does.
func exec(t *testing.T, id, script string) *api.ExecSyncResponse {
	t.Helper()
	return must(t, node.runtime.ExecSync, &api.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", script}, Timeout: 30})
}

// pidOf is the pid of a container's init, out of CRI's verbose status.
func pidOf(t *testing.T, id string) int {
	t.Helper()
	info := must(t, node.runtime.ContainerStatus, &api.ContainerStatusRequest{ContainerId: id, Verbose: true}).Info["info"]
	return pidIn(t, info)
}

func (p *pod) pid(t *testing.T) int {
	t.Helper()
	info := must(t, node.runtime.PodSandboxStatus, &api.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true}).Info["info"]
	return pidIn(t, info)
}
