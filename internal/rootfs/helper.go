package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/routine"
)

// Parent forks the helper programs. A *children.Owner is one.
type Parent interface {
	// Guard runs a function that forks and waits by itself.
	Guard(fn func() error) error
	// StartContext starts a program; ctx bounds the time until it runs.
	StartContext(ctx context.Context, cmd *exec.Cmd) (*children.Process, error)
}

// errHelper is a helper program that has not done what it was started for.
var errHelper = errors.New("helper program failed")

// help runs a helper program to its end, and returns what it has said. A daemon
// that it leaves behind may keep the output open; it is not waited for.
func (m *Mounter) help(cmd *exec.Cmd) (said string, err error) {
	switch {
	case cmd.Err != nil: // it was not found
		return "", cmd.Err
	case m.parent == nil:
		return "", fmt.Errorf("no helper program is started here: %w", errdefs.ErrNotImplemented)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	ctx, cancel := context.WithTimeout(context.Background(), m.helperTime)
	defer cancel()
	p, err := m.parent.StartContext(ctx, cmd)
	w.Close()
	if err != nil {
		return "", err
	}
	out, read := &tail{}, make(chan struct{})
	routine.Go(nil, "reading of a helper's output", func() { _, _ = io.Copy(out, r) }, routine.DebtFunc(func() { close(read) }))
	exit, err := p.Wait(ctx)
	switch {
	case ctx.Err() != nil && (err != nil || exit.Status != 0):
		err = errors.Join(fmt.Errorf("did not end within %v: %w", m.helperTime, context.Cause(ctx)), p.KillTree(nil))
	case err == nil && exit.Status != 0:
		err = fmt.Errorf("%w: exit status %d", errHelper, exit.Status)
	}
	_ = r.SetReadDeadline(time.Now().Add(outputGrace))
	<-read
	return out.String(), err
}

// guarded runs a function that forks and waits by itself.
func (m *Mounter) guarded(fn func() error) error {
	if m.parent == nil {
		return fn()
	}
	return m.parent.Guard(fn)
}

// tail keeps the first bytes that a helper program says.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 1024
	t.b = append(t.b, p[:min(len(p), most-len(t.b))]...)
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.b)) }
