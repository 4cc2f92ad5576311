package bench

// The bare runtime: the same work without a shim, the limit for all of them. It is driven
// by a process of its own, because that has to be a subreaper (package children), which
// would take away the bench's own helpers. This file is the bench's side.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/shimclient"
)

// bareSetup is the first line that the helper reads.
type bareSetup struct {
	Runtime string
	Dir     string // private; the helper works in it
	Rootfs  string
	ID      string // of the standing container, and the beginning of all others' IDs
}

// bareRequest is one piece of work, a line of JSON, and bareAnswer what it took.
type bareRequest struct {
	Op       string // bareExecs or bareTasks
	N        int
	Parallel int
}

type bareAnswer struct {
	Batch batch
	Error string
}

// The operations of the helper.
const (
	bareExecs = "execs"
	bareTasks = "tasks"
)

// bare is the helper's process.
type bare struct {
	home *shimclient.Home
	set  bareSetup
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
}

// newBare starts the helper, with a container standing.
func (b *bench) newBare(ctx context.Context, rt Runtime) (_ *bare, err error) {
	home, err := newHome()
	if err != nil {
		return nil, err
	}
	x := &bare{home: home, set: bareSetup{Runtime: rt.Path, Dir: home.Dir, Rootfs: b.rootfs, ID: filepath.Base(home.Dir)}}
	x.cmd = exec.CommandContext(ctx, b.cfg.BareHelper[0], b.cfg.BareHelper[1:]...)
	x.cmd.Dir = home.Dir
	x.cmd.Stderr = os.Stderr
	x.cmd.WaitDelay = helperTimeout
	// Ctrl-C is ours to answer; the helper ends with its input.
	x.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	if x.in, err = x.cmd.StdinPipe(); err != nil {
		return nil, errors.Join(err, home.Close())
	}
	out, err := x.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, home.Close())
	}
	x.out = json.NewDecoder(out)
	if err := x.cmd.Start(); err != nil {
		return nil, errors.Join(err, home.Close())
	}
	if err := x.send(x.set); err != nil {
		return nil, errors.Join(err, x.close(ctx))
	}
	if _, err := x.answer(); err != nil {
		return nil, errors.Join(err, x.close(ctx))
	}
	return x, nil
}

func (x *bare) send(v any) error { return json.NewEncoder(x.in).Encode(v) }

func (x *bare) answer() (batch, error) {
	var a bareAnswer
	if err := x.out.Decode(&a); err != nil {
		return batch{}, fmt.Errorf("the bare runtime's helper: %w", err)
	}
	if a.Error != "" {
		return batch{}, errors.New(a.Error)
	}
	return a.Batch, nil
}

// do has the helper do n operations, parallel at once.
func (x *bare) do(op string, n, parallel int) (batch, error) {
	if err := x.send(bareRequest{Op: op, N: n, Parallel: parallel}); err != nil {
		return batch{}, err
	}
	return x.answer()
}

// close ends the helper, which deletes its container, and removes what is left of one
// that was killed.
func (x *bare) close(ctx context.Context) error {
	x.in.Close()
	kill := time.AfterFunc(helperTimeout, func() { x.cmd.Process.Kill() })
	waitErr := x.cmd.Wait()
	kill.Stop()
	ctx = context.WithoutCancel(ctx)
	errs := []error{waitErr}
	root := x.root()
	left, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range left {
		errs = append(errs, shimclient.DeleteContainer(ctx, x.set.Runtime, root, e.Name()))
		errs = append(errs, shimclient.ClearCgroup(ctx, "/"+e.Name()))
	}
	return errors.Join(append(errs, x.home.Close())...)
}

func (x *bare) root() string { return bareRoot(x.set.Dir) }

// bareRoot is the runtime's state directory.
func bareRoot(dir string) string { return filepath.Join(dir, "runtime", namespace) }
