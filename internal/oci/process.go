package oci

// process.go: the three calls that make a process of which the shim becomes the
// parent. Order matters: the stale pid file goes, then the window opens, then
// the runtime runs; so that the pid which is claimed was written by this call
// and the process is no older than the window.

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/routine"
)

// IO is the stdio of a process that a call makes. The runtime is given it as its
// own, and hands it on.
type IO interface {
	// Set connects the runtime's stdin, stdout and stderr.
	Set(*exec.Cmd)
	// CloseAfterStart is called once the runtime holds its copies.
	CloseAfterStart() error
	// ConsolePath is the socket to which the runtime sends the master of the
	// process's terminal; empty if there is no terminal. If there is one, Set is
	// not called and what the runtime writes is collected.
	ConsolePath() string
}

// CreateCall is what Create needs.
type CreateCall struct {
	// PidFile is an absolute path in the bundle. It stays there: others read it.
	PidFile string
	// Namespace is the pid namespace that init will live in.
	Namespace *children.PIDNamespace
	// IO is init's stdio.
	IO IO
	// NoPivot and NoNewKeyring pass --no-pivot and --no-new-keyring.
	NoPivot, NoNewKeyring bool
}

// ExecCall is what Exec needs.
type ExecCall struct {
	// PidFile is an absolute path in the bundle, different for each exec that is
	// under way. It is gone when Exec returns.
	PidFile string
	// Process is the process of the OCI runtime spec, as JSON.
	Process []byte
	// Namespace is the pid namespace of the container.
	Namespace *children.PIDNamespace
	// IO is the process's stdio.
	IO IO
}

// RestoreCall is what Restore needs.
type RestoreCall struct {
	// PidFile is an absolute path in the bundle. It stays there.
	PidFile string
	// Namespace is the pid namespace that init will live in.
	Namespace *children.PIDNamespace
	// IO is init's stdio.
	IO IO
	// ImagePath is the directory of the dump; WorkPath where CRIU works and
	// logs; ParentPath that of an earlier dump. The last two may be empty.
	ImagePath, WorkPath, ParentPath string
	// NoPivot passes --no-pivot.
	NoPivot bool
}

// Create makes a container whose init waits for Start, and returns that init.
// On an error nothing that the call made is running any more.
func (r *Runtime) Create(ctx context.Context, id string, c CreateCall) (*children.Child, error) {
	args := append(make([]string, 0, 12), opCreate, "--bundle", r.dir, "--pid-file", c.PidFile)
	args = withConsole(args, c.IO)
	if c.NoPivot {
		args = append(args, "--no-pivot")
	}
	if c.NoNewKeyring {
		args = append(args, "--no-new-keyring")
	}
	return r.spawn(ctx, c.PidFile, &call{
		op: opCreate, args: append(args, id), deadline: r.deadlines.Create,
		space: c.Namespace, io: c.IO,
	})
}

// Exec starts a further process in a running container and returns it. On an
// error nothing that the call made is running any more.
func (r *Runtime) Exec(ctx context.Context, id string, c ExecCall) (*children.Child, error) {
	// The process spec and the log are files in memory that the runtime, or a
	// wrapper around it, opens through our /proc entry. That takes 20 us of CPU
	// for the spec, where a file in the bundle takes 24 on a tmpfs and 86 on a disk
	// (BenchmarkSpec); it needs no free byte on either, and goes with us if we are
	// killed. What may open it is what may open the container's /proc/PID/ns, and
	// exec does that anyway.
	spec, err := r.files.memory("process.json", c.Process)
	if err != nil {
		return nil, systemError(opExec, "passing the process spec", err)
	}
	defer spec.Close()
	log, err := r.files.memory(logName, nil)
	if err != nil {
		return nil, systemError(opExec, "making a log", err)
	}
	defer log.Close()
	args := append(make([]string, 0, 10), opExec, "--process", memoryPath(spec))
	args = withConsole(args, c.IO)
	args = append(args, "--detach", "--pid-file", c.PidFile, id)
	defer func() {
		if err := r.files.remove(c.PidFile); err != nil {
			r.log.Warn("the pid file of an exec stays behind", "error", err)
		}
	}()
	return r.spawn(ctx, c.PidFile, &call{
		op: opExec, args: args, log: log, deadline: r.deadlines.Exec,
		space: c.Namespace, io: c.IO,
	})
}

// memoryPath is the name under which others can open a file in our memory.
func memoryPath(f *os.File) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

// Restore makes a container from a dump and returns its init, running. It has no
// deadline but ctx's. On an error nothing that the call made is running any more.
func (r *Runtime) Restore(ctx context.Context, id string, c RestoreCall) (*children.Child, error) {
	args := append(make([]string, 0, 18), opRestore)
	for _, p := range [][2]string{{"--image-path", c.ImagePath}, {"--work-path", c.WorkPath}, {"--parent-path", c.ParentPath}} {
		if p[1] != "" {
			args = append(args, p[0], p[1])
		}
	}
	args = append(args, "--detach", "--pid-file", c.PidFile)
	args = withConsole(args, c.IO)
	if c.NoPivot {
		args = append(args, "--no-pivot")
	}
	// Without it runc makes itself the subreaper, and init would be its orphan.
	args = append(args, "-no-subreaper", "--bundle", r.dir, id)
	return r.spawn(ctx, c.PidFile, &call{
		op: opRestore, args: args, deadline: r.deadlines.Restore, attached: true,
		space: c.Namespace, io: c.IO,
	})
}

// spawn runs a call that makes a process, and claims the process.
func (r *Runtime) spawn(ctx context.Context, pidFile string, c *call) (child *children.Child, err error) {
	if c.space == nil {
		return nil, fmt.Errorf("%s: %w", said(c.op, "no pid namespace given"), errdefs.ErrInvalidArgument)
	}
	if err := r.files.remove(pidFile); err != nil {
		return nil, systemError(c.op, "a stale pid file", err)
	}
	c.window, c.pidFile = r.owner.Begin(c.space), pidFile
	defer c.window.Close()
	done, err := r.run(ctx, c)
	if err != nil {
		return nil, err
	}
	claimed := false
	defer func() {
		if !claimed { // after a panic too
			r.killTree(c, done.process)
			r.end(child)
		}
	}()
	pid, err := r.readPidFile(pidFile)
	if err != nil {
		return nil, systemError(c.op, "its process", err)
	}
	failpoint.Point("runtime: pid read")
	child, err = c.window.Claim(pid)
	failpoint.Point("runtime: process claimed")
	if err != nil {
		// The cause, a children.ClaimError, carries the class.
		return nil, systemError(c.op, fmt.Sprintf("pid %d, which %s named", pid, r.name), err)
	}
	claimed = true
	return child, nil
}

// end kills a process that was claimed and that nobody will get.
func (r *Runtime) end(child *children.Child) {
	if child == nil {
		return
	}
	_ = child.Signal(unix.SIGKILL) // an error means that it has exited
	routine.Go(r.log, "reap", func() { _, _ = child.Wait(context.Background()) })
}

// withConsole adds where the terminal's master is to be sent, if there is to be a
// terminal.
func withConsole(args []string, io IO) []string {
	if io == nil || io.ConsolePath() == "" {
		return args
	}
	return append(args, "--console-socket", io.ConsolePath())
}
