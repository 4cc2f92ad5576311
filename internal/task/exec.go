package task

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/stdio"
	"github.com/larkshim/lark/lifecycle"
)

// Exec adds a process to a running container, to be started by Start.
// AlreadyExists if the id is taken, FailedPrecondition if the container takes no
// process now, InvalidArgument for a spec that cannot be.
func (s *Service) Exec(ctx context.Context, r *task.ExecProcessRequest) (*emptypb.Empty, error) {
	execID, err := bundle.ParseExecID(r.ExecID)
	if err != nil {
		return nil, err
	}
	c, err := s.find(r.ID)
	if err != nil {
		return nil, err
	}
	if execID.String() == c.id {
		// An exit names the process, and by this name containerd knows init.
		return nil, fmt.Errorf("exec id %q is the container's: %w", execID, errdefs.ErrInvalidArgument)
	}
	spec, err := execSpec(r.Spec, r.Terminal)
	if err != nil {
		return nil, fmt.Errorf("exec %q of container %q: %w", execID, c.id, err)
	}
	p := newProcess(lifecycle.Proc(execID.String()))
	p.execID, p.spec = execID, spec
	p.stdio = stdio.Spec{
		Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal,
		UID: c.init.stdio.UID, GID: c.init.stdio.GID,
		// A logger of an exec is told the exec's id by this name, in upstream's shim too.
		ContainerID: execID.String(), Namespace: c.init.stdio.Namespace,
	}
	failpoint.Step("exec: checked")
	s.cfg.Outbox.Pace(ctx) // an exec brings three events
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.stepLocked(lifecycle.Event{Kind: lifecycle.ExecAsked, Proc: p.id}); err != nil {
		return nil, err
	}
	c.execs[p.id] = p
	return &emptypb.Empty{}, nil
}

// execSpec checks a process spec and returns it as JSON for the runtime. What the
// runtime can judge better (capabilities, users, paths) is left to it. The request
// decides about the terminal, as it does in upstream's shim.
func execSpec(a *anypb.Any, terminal bool) ([]byte, error) {
	data := a.GetValue()
	if len(data) > maxExecSpec {
		return nil, fmt.Errorf("the process spec has %d bytes, more than %d: %w", len(data), maxExecSpec, errdefs.ErrInvalidArgument)
	}
	if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
		return nil, fmt.Errorf("the process spec is null: %w", errdefs.ErrInvalidArgument)
	}
	var spec specs.Process
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("the process spec is not JSON of an OCI process: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if len(spec.Args) == 0 {
		return nil, fmt.Errorf("the process spec has no args: %w", errdefs.ErrInvalidArgument)
	}
	for _, list := range [][]string{spec.Args, spec.Env} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return nil, fmt.Errorf("the process spec has a NUL byte in args or env: %w", errdefs.ErrInvalidArgument)
			}
		}
	}
	if spec.Terminal == terminal {
		return data, nil
	}
	spec.Terminal = terminal
	return json.Marshal(&spec)
}
