package task

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/taskapi"
	"github.com/larkshim/lark/lifecycle"
)

// simCall is one request of a client.
type simCall struct {
	label    string
	op       string
	id, exec string
	cancel   context.CancelFunc
	left     bool // before it was answered

	// subject is the process that the client had every reason to take for alive
	// when it asked, or nil.
	subject *simProc
	// life and told are what was known of the process then.
	life *simLife
	told *told

	over     bool
	panicked bool
	err      error
	status   uint32
	state    *task.StateResponse
}

// simClients makes requests, each on a goroutine of its own.
type simClients struct {
	s       *simulation
	service *Service
	bundles map[string]string

	mu    sync.Mutex
	calls []*simCall
	made  int
	// asked counts the calls of a kind, answered those that were answered well.
	answers int
}

// simOps are the requests, with the weights with which they are drawn.
var simOps = map[string]float64{
	"create": 3, "create restored": 0.4, "start": 0.8, "exec": 0.5, "start exec": 0.7, "kill": 0.15, "kill exec": 0.15, "kill all": 0.07,
	"pause": 0.15, "resume": 0.25, "update": 0.05, "wait": 0.1, "wait exec": 0.1, "state": 0.07, "state exec": 0.07,
	"delete": 0.25, "delete exec": 0.25, "shutdown": 0.05, "stats": 0.03, "closeio exec": 0.05, "checkpoint": 0.05,
}

// inFlight is how many calls wait for their answer.
func (c *simClients) inFlight() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.calls {
		if !call.over {
			n++
		}
	}
	return n
}

// actions are the requests that can be made now, and the clients that can leave.
func (c *simClients) actions() (all []action) {
	if c.inFlight() < maxSimCalls {
		for _, id := range simContainers {
			exists := slices.Contains(c.service.ids(), id)
			for op, weight := range simOps {
				if exists == strings.HasPrefix(op, "create") {
					weight /= 30
				}
				for _, exec := range simExecs {
					all = append(all, action{fmt.Sprintf("client %s %s %s", op, id, exec), weight, func() { c.begin(op, id, exec) }})
				}
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.calls {
		if !call.over && !call.left {
			all = append(all, action{"client leaves " + call.label, 0.05, call.leave})
		}
	}
	return all
}

// leave closes the client's connection.
func (call *simCall) leave() {
	call.left = true
	call.cancel()
}

// begin makes one request on a goroutine of its own.
func (c *simClients) begin(op, id, exec string) *simCall {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	conn := uint64(c.made)
	c.service.Opened(conn)
	ctx, end := context.WithCancel(taskapi.WithConn(context.Background(), conn))
	cancel := sync.OnceFunc(func() {
		end()
		c.service.Closed(conn)
	})
	call := &simCall{op: op, id: id, cancel: cancel}
	if opIsOfExec(op) {
		call.exec = exec
	}
	call.label = fmt.Sprintf("%s %s %s #%d", op, id, call.exec, c.made)
	call.subject = c.s.running(id, call.exec)
	call.life, call.told = c.s.known(id, call.exec)
	c.calls = append(c.calls, call)
	go func() {
		defer cancel()
		c.make(ctx, call)
		c.mu.Lock()
		defer c.mu.Unlock()
		call.over = true
		if call.err == nil {
			c.answers++
		}
		c.s.judge(call)
	}()
	return call
}

func opIsOfExec(op string) bool {
	switch op {
	case "exec", "start exec", "kill exec", "wait exec", "state exec", "delete exec", "closeio exec":
		return true
	}
	return false
}

// make makes the request. A panic is answered by the server with Internal.
func (c *simClients) make(ctx context.Context, call *simCall) {
	defer func() {
		if r := recover(); r != nil {
			if _, ours := r.(simPanic); !ours {
				panic(r)
			}
			call.panicked = true
			call.err = fmt.Errorf("panic: %v: %w", r, errdefs.ErrInternal)
		}
	}()
	s, id, exec := c.service, call.id, call.exec
	switch call.op {
	case "create":
		_, call.err = s.Create(ctx, &task.CreateTaskRequest{ID: id, Bundle: c.bundles[id]})
	case "create restored":
		_, call.err = s.Create(ctx, &task.CreateTaskRequest{ID: id, Bundle: c.bundles[id], Checkpoint: "/nonexistent"})
	case "start", "start exec":
		_, call.err = s.Start(ctx, &task.StartRequest{ID: id, ExecID: exec})
	case "exec":
		_, call.err = s.Exec(ctx, &task.ExecProcessRequest{ID: id, ExecID: exec, Spec: &anypb.Any{Value: simExecSpec}})
	case "kill", "kill exec", "kill all":
		_, call.err = s.Kill(ctx, &task.KillRequest{ID: id, ExecID: exec, Signal: 9, All: call.op == "kill all"})
	case "pause":
		_, call.err = s.Pause(ctx, &task.PauseRequest{ID: id})
	case "resume":
		_, call.err = s.Resume(ctx, &task.ResumeRequest{ID: id})
	case "update":
		_, call.err = s.Update(ctx, &task.UpdateTaskRequest{ID: id, Resources: &anypb.Any{Value: []byte("{}")}})
	case "checkpoint":
		_, call.err = s.Checkpoint(ctx, &task.CheckpointTaskRequest{ID: id, Path: "/nonexistent"})
	case "wait", "wait exec":
		var r *task.WaitResponse
		if r, call.err = s.Wait(ctx, &task.WaitRequest{ID: id, ExecID: exec}); call.err == nil {
			call.status = r.ExitStatus
		}
	case "state", "state exec":
		call.state, call.err = s.State(ctx, &task.StateRequest{ID: id, ExecID: exec})
	case "delete", "delete exec":
		var r *task.DeleteResponse
		if r, call.err = s.Delete(ctx, &task.DeleteRequest{ID: id, ExecID: exec}); call.err == nil {
			call.status = r.ExitStatus
		}
	case "stats":
		_, call.err = s.Stats(ctx, &task.StatsRequest{ID: id})
	case "closeio exec":
		_, call.err = s.CloseIO(ctx, &task.CloseIORequest{ID: id, ExecID: exec, Stdin: true})
	case "shutdown":
		_, call.err = s.Shutdown(ctx, &task.ShutdownRequest{ID: id})
	default:
		panic("no such request: " + call.op)
	}
}

var simExecSpec = func() []byte {
	data, err := json.Marshal(&specs.Process{Args: []string{"true"}, Cwd: "/"})
	if err != nil {
		panic(err)
	}
	return data
}()

// simBundle makes the bundle of a container in dir.
func simBundle(dir, id string, shared bool) (string, error) {
	bundle := filepath.Join(dir, id)
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		return "", err
	}
	spec := &specs.Spec{
		Version: "1.0.2", Process: &specs.Process{Args: []string{"true"}, Cwd: "/"}, Root: &specs.Root{Path: "rootfs"},
		Linux: &specs.Linux{},
	}
	if !shared {
		spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace}}
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return "", err
	}
	return bundle, os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600)
}

// proc is the id by which the rules know the process of the call.
func (call *simCall) proc() lifecycle.Proc { return lifecycle.Proc(call.exec) }
