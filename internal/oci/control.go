package oci

// control.go: the calls that act on a container or ask about it.

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// statusStopped is the OCI status of a container whose init has exited.
const statusStopped = "stopped"

// Start lets a created container's init run.
func (r *Runtime) Start(ctx context.Context, id string) error {
	_, err := r.run(ctx, &call{op: opStart, args: []string{opStart, id}, deadline: r.deadlines.Start})
	return err
}

// Kill sends sig to init, or with all to every process of the container. An
// answer without error says that the runtime has sent it, not that anybody died.
// NotFound: there is no such container. FailedPrecondition: its init has exited,
// as the runtime has it.
// A SIGKILL of init is withdrawn with DeadlineExceeded if the runtime's program
// does not run soon.
func (r *Runtime) Kill(ctx context.Context, id string, sig unix.Signal, all bool) error {
	args := make([]string, 0, 4)
	args = append(args, opKill)
	if all {
		args = append(args, "--all")
	}
	c := &call{op: opKill, args: append(args, id, strconv.Itoa(int(sig))), deadline: r.deadlines.Kill, attached: true}
	if sig == unix.SIGKILL && !all {
		c.launch = r.deadlines.KillLaunch
	}
	_, err := r.run(ctx, c)
	return r.classify(ctx, id, err, errdefs.ErrFailedPrecondition)
}

// Delete removes a stopped container; with force it kills it first. NotFound:
// there is none, which for most callers is as good.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error {
	args := make([]string, 0, 3)
	args = append(args, opDelete)
	if force {
		args = append(args, "--force")
	}
	_, err := r.run(ctx, &call{op: opDelete, args: append(args, id), deadline: r.deadlines.Delete})
	return r.classify(ctx, id, err, nil)
}

// Pause freezes the container.
func (r *Runtime) Pause(ctx context.Context, id string) error {
	_, err := r.run(ctx, &call{op: opPause, args: []string{opPause, id}, deadline: r.deadlines.Pause, attached: true})
	return r.classify(ctx, id, err, errdefs.ErrFailedPrecondition)
}

// Resume thaws the container.
func (r *Runtime) Resume(ctx context.Context, id string) error {
	_, err := r.run(ctx, &call{op: opResume, args: []string{opResume, id}, deadline: r.deadlines.Resume, attached: true})
	return r.classify(ctx, id, err, errdefs.ErrFailedPrecondition)
}

// Update changes the container's resources.
func (r *Runtime) Update(ctx context.Context, id string, resources *specs.LinuxResources) error {
	data, err := json.Marshal(resources)
	if err != nil {
		return errno.Classed(said(opUpdate, "the resources"), errdefs.ErrInvalidArgument, err)
	}
	// Through memory: a pipe holds 64 KiB, and a goroutine to fill it could be
	// left behind by a runtime that does not read.
	stdin, err := r.files.memory("resources", data)
	if err != nil {
		return systemError(opUpdate, "passing the resources", err)
	}
	_, err = r.run(ctx, &call{
		op: opUpdate, args: []string{opUpdate, "--resources", "-", id}, deadline: r.deadlines.Update, attached: true, stdin: stdin,
	})
	return r.classify(ctx, id, err, errdefs.ErrFailedPrecondition)
}

// CheckpointCall says how to dump a container.
type CheckpointCall struct {
	// ImagePath is where the dump goes; WorkPath where CRIU works and logs;
	// ParentPath an earlier dump. The last two may be empty.
	ImagePath, WorkPath, ParentPath string
	// LeaveRunning lets the container run on after the dump.
	LeaveRunning bool
	// AllowOpenTCP, AllowExternalUnixSockets, AllowTerminal and FileLocks allow
	// what CRIU refuses by default.
	AllowOpenTCP, AllowExternalUnixSockets, AllowTerminal, FileLocks bool
	// EmptyNamespaces are made anew at restore instead of being dumped.
	EmptyNamespaces []string
}

// args spells the call as runc reads it.
func (c CheckpointCall) args() []string {
	var args []string
	for _, p := range [][2]string{{"--image-path", c.ImagePath}, {"--work-path", c.WorkPath}, {"--parent-path", c.ParentPath}} {
		if p[1] != "" {
			args = append(args, p[0], p[1])
		}
	}
	for _, f := range []struct {
		set  bool
		flag string
	}{
		{c.AllowOpenTCP, "--tcp-established"},
		{c.AllowExternalUnixSockets, "--ext-unix-sk"},
		{c.AllowTerminal, "--shell-job"},
		{c.FileLocks, "--file-locks"},
	} {
		if f.set {
			args = append(args, f.flag)
		}
	}
	for _, ns := range c.EmptyNamespaces {
		args = append(args, "--empty-ns", ns)
	}
	if c.LeaveRunning {
		args = append(args, "--leave-running")
	}
	return args
}

// Checkpoint dumps a container with CRIU. It has no deadline but ctx's.
func (r *Runtime) Checkpoint(ctx context.Context, id string, c CheckpointCall) error {
	args := append([]string{opCheckpoint}, c.args()...)
	_, err := r.run(ctx, &call{op: opCheckpoint, args: append(args, id), deadline: r.deadlines.Checkpoint, attached: true})
	return r.classify(ctx, id, err, errdefs.ErrFailedPrecondition)
}

// Pids lists the container's processes, in the shim's pid namespace.
func (r *Runtime) Pids(ctx context.Context, id string) ([]int, error) {
	var pids []int
	err := r.query(ctx, &call{op: opPids, args: []string{opPids, "--format", "json", id}, deadline: r.deadlines.Pids}, &pids)
	return pids, r.classify(ctx, id, err, nil)
}

// State asks the runtime about a container. NotFound: it knows none of that id.
func (r *Runtime) State(ctx context.Context, id string) (*runc.Container, error) {
	var c runc.Container
	probe := &call{op: opState, args: []string{opState, id}, deadline: r.deadlines.State}
	err := r.query(ctx, probe, &c)
	if err == nil {
		return &c, nil
	}
	if e := asError(err); e != nil && r.gone(id, probe.home) {
		e.absent()
	}
	return nil, err
}

// Features asks the runtime what it implements. Older runtimes (crun before
// 1.8.6) have no such command: Unknown.
func (r *Runtime) Features(ctx context.Context) (*features.Features, error) {
	var f features.Features
	err := r.query(ctx, &call{op: opFeatures, args: []string{opFeatures}, deadline: r.deadlines.Features}, &f)
	if err != nil {
		return nil, err
	}
	return &f, nil
}

// Version asks the runtime for its version: the first line, as it is.
func (r *Runtime) Version(ctx context.Context) (string, error) {
	done, err := r.run(ctx, &call{op: opVersion, args: []string{opVersion}, deadline: r.deadlines.Features, answer: true})
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(done.stdout), "\n")
	return clip(printable(strings.TrimSpace(first))), nil
}

// query runs a call whose answer is JSON on stdout.
func (r *Runtime) query(ctx context.Context, c *call, into any) error {
	c.answer = true
	done, err := r.run(ctx, c)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(done.stdout, into); err != nil {
		return errno.Classed(said(c.op, r.name+" answered nonsense"), errdefs.ErrInternal, err)
	}
	return nil
}

// classify finds out why a call was refused, by asking for the state. If there is
// no such container, a kill or a delete is NotFound; every other call is
// FailedPrecondition, because its caller may well have the container, of which
// the runtime has lost the state. If init has exited, it is ifStopped (if not
// nil). Only a runtime that ran and said no is asked again.
func (r *Runtime) classify(ctx context.Context, id string, err error, ifStopped error) error {
	e := asError(err)
	if e == nil || !refused(e) {
		return err
	}
	state, serr := r.State(ctx, id)
	switch {
	case errdefs.IsNotFound(serr) && (e.Op == opKill || e.Op == opDelete):
		e.absent()
	case errdefs.IsNotFound(serr):
		e.class = errdefs.ErrFailedPrecondition
	case serr == nil && state.Status == statusStopped && ifStopped != nil:
		e.class = ifStopped
	}
	return err
}

// gone reports whether the runtime's directory, the same as before the runtime
// was asked, has nothing of that name. It keeps a runtime that fails for another
// reason (its log cannot be opened, its state is damaged) from making a living
// container look deleted.
func (r *Runtime) gone(id string, before place) bool {
	if now, err := r.place(); r.root == "" || err != nil || now != before {
		return false
	}
	there, err := r.files.exists(filepath.Join(r.root, id))
	return err == nil && !there
}

// refused tells whether the runtime itself said no: it ran, and ended by itself.
func refused(e *Error) bool {
	return e.Status != 0 && !bySignal(e.Status)
}

// Refused reports whether an error is the refusal of a runtime that ran, and not
// a failure to run it.
func Refused(err error) bool {
	e := asError(err)
	return e != nil && refused(e)
}

func asError(err error) *Error {
	var e *Error
	errors.As(err, &e)
	return e
}
