package bench

// A stage: one shim that is up, driven directly, with containers in it.

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/shimclient"
	"github.com/larkshim/lark/internal/spec"
)

// namespace is the containerd namespace of everything here.
const namespace = "lark-bench"

// stage is a running shim with its Home and Sink. exits, if set before the first
// container, is told of every exit event.
type stage struct {
	b      *bench
	rt     Runtime
	home   *shimclient.Home
	sink   *shimclient.Sink
	shim   *shimclient.Shim
	bundle *shimclient.Bundle // the first container's
	count  atomic.Int64       // of execs, for their names
	events atomic.Pointer[func(shimclient.Event)]
}

// newStage starts a shim for a container that is not yet created.
func (b *bench) newStage(ctx context.Context, s Shim, rt Runtime) (_ *stage, err error) {
	st := &stage{b: b, rt: rt}
	if st.home, err = newHome(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.abandon())
		}
	}()
	if st.sink, err = shimclient.NewSink(st.home, b.cfg.Log, st.observe); err != nil {
		return nil, err
	}
	if st.bundle, err = st.home.NewBundle(st.name("0"), st.spec("0", "sleep", "2147483647")); err != nil {
		return nil, err
	}
	cfg := shimclient.Config{Binary: s.Path, Runtime: rt.Path, Namespace: namespace, Home: st.home, Sink: st.sink, Era: s.era}
	st.shim, err = shimclient.Start(ctx, cfg, st.bundle)
	return st, err
}

// newRunningStage also creates and starts the container.
func (b *bench) newRunningStage(ctx context.Context, s Shim, rt Runtime) (*stage, error) {
	st, err := b.newStage(ctx, s, rt)
	if err != nil {
		return nil, err
	}
	if err := st.up(ctx, st.bundle); err != nil {
		return nil, errors.Join(err, st.close(ctx))
	}
	return st, nil
}

func (st *stage) observe(e shimclient.Event) {
	if fn := st.events.Load(); fn != nil {
		(*fn)(e)
	}
}

// name makes an ID unique on the machine.
func (st *stage) name(suffix string) string { return filepath.Base(st.home.Dir) + "-" + suffix }

// spec is a container's specification; all share the root filesystem, read-only.
func (st *stage) spec(suffix string, args ...string) *specs.Spec {
	return spec.Default(spec.Options{Rootfs: st.b.rootfs, ReadOnly: true, Args: args, Cgroup: "/" + st.name(suffix)})
}

// create makes a container of a bundle, without streams.
func (st *stage) create(ctx context.Context, bundle *shimclient.Bundle) error {
	opts, err := st.shim.Options()
	if err != nil {
		return err
	}
	_, err = st.shim.Create(ctx, &taskapi.CreateTaskRequest{ID: bundle.ID, Bundle: bundle.Path, Options: opts})
	return err
}

// up creates and starts a container.
func (st *stage) up(ctx context.Context, bundle *shimclient.Bundle) error {
	if err := st.create(ctx, bundle); err != nil {
		return err
	}
	_, err := st.shim.Task.Start(ctx, &taskapi.StartRequest{ID: bundle.ID})
	return err
}

// down kills and deletes a container.
func (st *stage) down(ctx context.Context, bundle *shimclient.Bundle) error {
	if err := st.shim.Kill(ctx, &taskapi.KillRequest{ID: bundle.ID, Signal: uint32(unix.SIGKILL)}); err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	if _, err := st.shim.Wait(ctx, &taskapi.WaitRequest{ID: bundle.ID}); err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	_, err := st.shim.Delete(ctx, &taskapi.DeleteRequest{ID: bundle.ID})
	return err
}

// close ends everything in order, by force where it must.
func (st *stage) close(ctx context.Context) error {
	// Whether the container lives or was never made, Stop clears it.
	call, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	_ = st.down(call, st.bundle)
	err := st.shim.Stop(ctx)
	return errors.Join(err, st.abandon())
}

// abandon removes the sink and the Home.
func (st *stage) abandon() error {
	var err error
	if st.sink != nil {
		err = st.sink.Close()
	}
	return errors.Join(err, st.home.Close())
}

// process packs the process of an exec.
func (st *stage) process(args ...string) (*anypb.Any, error) {
	p := *st.spec("0", args...).Process
	return shimclient.ProcessSpec(&p)
}

// execID is the next name of an exec.
func (st *stage) execID() string { return "e" + strconv.FormatInt(st.count.Add(1), 10) }

// exec takes one exec from Exec to Delete.
func (st *stage) exec(ctx context.Context, process *anypb.Any) error {
	id := st.execID()
	if err := st.startExec(ctx, id, process, "", ""); err != nil {
		return err
	}
	if _, err := st.shim.Wait(ctx, &taskapi.WaitRequest{ID: st.bundle.ID, ExecID: id}); err != nil {
		return err
	}
	_, err := st.shim.Delete(ctx, &taskapi.DeleteRequest{ID: st.bundle.ID, ExecID: id})
	return err
}

func (st *stage) startExec(ctx context.Context, id string, process *anypb.Any, stdout, stderr string) error {
	req := &taskapi.ExecProcessRequest{ID: st.bundle.ID, ExecID: id, Spec: process, Stdout: stdout, Stderr: stderr}
	if err := st.shim.Exec(ctx, req); err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	if _, err := st.shim.Task.Start(ctx, &taskapi.StartRequest{ID: st.bundle.ID, ExecID: id}); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return nil
}

// lookPath resolves a program to an absolute path.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
