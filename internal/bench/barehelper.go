package bench

// The helper's side of the bare runtime: `exec --detach --pid-file` and the others, under
// a subreaper that waits for the process.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/spec"
)

// bareHelper drives one runtime.
type bareHelper struct {
	set   bareSetup
	owner *children.Owner
	ns    *children.PIDNamespace // of the standing container
	init  *children.Child
	count atomic.Int64
}

// ServeBare is the helper's life: it reads its setup, makes a container stand, does what
// it is asked, and deletes the container when its input ends.
func ServeBare(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	h := &bareHelper{ns: children.NewNamespace()}
	if err := requests.Decode(&h.set); err != nil {
		return err
	}
	if h.owner, err = children.NewOwner(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))); err != nil {
		return err
	}
	defer h.owner.Close()
	h.init, err = h.stand(ctx)
	if err := answers.Encode(answerOf(batch{}, err)); err != nil || h.init == nil {
		return err
	}
	defer func() { err = errors.Join(err, h.fell()) }()
	for {
		var r bareRequest
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		b, err := h.serve(ctx, r)
		if err := answers.Encode(answerOf(b, err)); err != nil {
			return err
		}
	}
}

func answerOf(b batch, err error) bareAnswer {
	if err != nil {
		return bareAnswer{Error: err.Error()}
	}
	return bareAnswer{Batch: b}
}

func (h *bareHelper) serve(ctx context.Context, r bareRequest) (batch, error) {
	switch r.Op {
	case bareExecs:
		return runBatch(ctx, r.N, r.Parallel, h.exec)
	case bareTasks:
		first := int(h.count.Add(int64(r.N))) // bundles of their own, made before the clock runs
		for i := range r.N {
			if err := h.bundle(h.taskID(first+i), "true"); err != nil {
				return batch{}, err
			}
		}
		return runBatch(ctx, r.N, r.Parallel, func(ctx context.Context, i int) error { return h.task(ctx, h.taskID(first+i)) })
	}
	return batch{}, fmt.Errorf("no operation %q", r.Op)
}

func (h *bareHelper) taskID(i int) string { return h.set.ID + "-t" + strconv.Itoa(i) }

func (h *bareHelper) dir(id string) string { return filepath.Join(h.set.Dir, "bundles", id) }

// bundle writes a container's bundle.
func (h *bareHelper) bundle(id string, args ...string) error {
	if err := os.MkdirAll(h.dir(id), 0o700); err != nil {
		return err
	}
	return writeJSON(filepath.Join(h.dir(id), "config.json"), h.spec(id, args...))
}

func (h *bareHelper) spec(id string, args ...string) *specs.Spec {
	return spec.Default(spec.Options{Rootfs: h.set.Rootfs, ReadOnly: true, Args: args, Cgroup: "/" + id})
}

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// stand makes the container that the execs go into.
func (h *bareHelper) stand(ctx context.Context) (*children.Child, error) {
	if err := h.bundle(h.set.ID, "sleep", "2147483647"); err != nil {
		return nil, err
	}
	if err := writeJSON(filepath.Join(h.set.Dir, "process.json"), h.spec(h.set.ID, "true").Process); err != nil {
		return nil, err
	}
	return h.create(ctx, h.set.ID, h.ns, true)
}

// fell deletes the standing container.
func (h *bareHelper) fell() error {
	ctx := context.Background()
	if err := h.run(ctx, h.set.ID, "kill", h.set.ID, "KILL"); err != nil {
		return err
	}
	if _, err := h.init.Wait(ctx); err != nil {
		return err
	}
	return h.run(ctx, h.set.ID, "delete", h.set.ID)
}

// create makes a container and, if it is to run, starts it.
func (h *bareHelper) create(ctx context.Context, id string, ns *children.PIDNamespace, start bool) (*children.Child, error) {
	w := h.owner.Begin(ns)
	defer w.Close()
	pidFile := filepath.Join(h.dir(id), "init.pid")
	if err := h.run(ctx, id, "create", "--bundle", h.dir(id), "--pid-file", pidFile, id); err != nil {
		return nil, err
	}
	c, err := claim(w, pidFile)
	if err != nil || !start {
		return c, err
	}
	return c, h.run(ctx, id, "start", id)
}

// task takes one container from create to delete.
func (h *bareHelper) task(ctx context.Context, id string) error {
	c, err := h.create(ctx, id, children.NewNamespace(), true)
	if err != nil {
		return err
	}
	if _, err := c.Wait(ctx); err != nil {
		return err
	}
	return h.run(ctx, id, "delete", id)
}

// exec is one exec, from the runtime's fork to the process's end.
func (h *bareHelper) exec(ctx context.Context, _ int) error {
	pidFile := filepath.Join(h.set.Dir, "e"+strconv.FormatInt(h.count.Add(1), 10)+".pid")
	w := h.owner.Begin(h.ns)
	defer w.Close()
	if err := h.run(ctx, h.set.ID, "exec", "--process", filepath.Join(h.set.Dir, "process.json"), "--detach", "--pid-file", pidFile, h.set.ID); err != nil {
		return err
	}
	c, err := claim(w, pidFile)
	w.Close()
	if err != nil {
		return err
	}
	if _, err := c.Wait(ctx); err != nil {
		return err
	}
	return os.Remove(pidFile)
}

// claim takes the process whose pid the runtime has written.
func claim(w *children.Window, pidFile string) (*children.Child, error) {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, err
	}
	return w.Claim(pid)
}

// run makes one call of the runtime, with the options that shims give it.
func (h *bareHelper) run(ctx context.Context, id, command string, args ...string) error {
	log := filepath.Join(h.dir(id), "log.json")
	cmd := exec.Command(h.set.Runtime, append([]string{"--root", bareRoot(h.set.Dir), "--log", log, "--log-format", "json", command}, args...)...)
	cmd.Dir = h.dir(id)
	p, err := h.owner.Start(cmd)
	if err != nil {
		return err
	}
	exit, err := p.Wait(ctx)
	if err != nil {
		return err
	}
	if exit.Status != 0 {
		text, _ := os.ReadFile(log) // whatever it says is better than nothing
		return fmt.Errorf("%s %s: exit status %d: %.300s", filepath.Base(h.set.Runtime), command, exit.Status, text)
	}
	return nil
}
