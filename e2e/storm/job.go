package storm

// One scenario's calls: each is bounded, its answer is told to the checker, and
// what it may not answer is noted.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/internal/order"
)

// job is one container of a scenario. Its methods may be called from many
// goroutines, rand excepted.
type job struct {
	s    *storm
	id   string
	rand *rand.Rand
	// init is the pid of the container's init, 0 until it is made.
	init atomic.Uint32
	// mute: answers are not told to the checker, which takes those of one life of an id.
	mute bool
}

// answered tells the checker of an answer.
func (j *job) answered(a order.Answer) {
	if !j.mute {
		j.s.check.Answered(a)
	}
}

// name is the process in words.
func (j *job) name(exec string) string {
	if exec == "" {
		return j.id
	}
	return j.id + "/" + exec
}

// call makes one call within the bound. May says whether it may fail, because
// the scenario races it against the container's end. The first result is
// whether it succeeded, the second whether its answer is definite.
func (j *job) call(ctx context.Context, what string, may bool, f func(context.Context) error) (ok, definite bool) {
	ctx, cancel := context.WithTimeout(ctx, j.s.cfg.Bound)
	defer cancel()
	began := time.Now()
	err := f(ctx)
	switch {
	case err == nil:
		return true, true
	case ctx.Err() != nil:
		j.s.problem("%s hung: no answer in %v", what, time.Since(began).Round(time.Second))
		return false, false
	case errdefs.IsDeadlineExceeded(err) || errdefs.IsCanceled(err) || errdefs.IsUnavailable(err) || strings.Contains(err.Error(), "ttrpc: closed"):
		j.s.problem("%s: %v (after %v)", what, err, time.Since(began).Round(time.Millisecond))
		return false, false
	case !may:
		j.s.problem("%s: %v", what, err)
	}
	return false, true
}

// create makes the record and the task.
func (j *job) create(ctx context.Context, o daemon.SpecOpts, io daemon.Stdio) bool {
	return j.tryCreate(ctx, o, io, false)
}

func (j *job) tryCreate(ctx context.Context, o daemon.SpecOpts, io daemon.Stdio, may bool) bool {
	ok, _ := j.call(ctx, "record of "+j.id, false, func(ctx context.Context) error {
		return j.s.c.CreateContainer(ctx, j.id, j.s.runtime, j.s.d.Spec(j.id, o))
	})
	if !ok {
		return false
	}
	var pid uint32
	ok, definite := j.call(ctx, "create of "+j.id, may, func(ctx context.Context) (err error) {
		pid, err = j.s.c.CreateTask(ctx, j.id, daemon.BindRootfs(j.s.rootfs), io)
		return err
	})
	j.init.Store(pid)
	if definite {
		j.answered(order.Answer{Call: order.CallCreate, Container: j.id, Failed: !ok, Pid: pid})
	}
	return ok
}

// start starts the init or an exec.
func (j *job) start(ctx context.Context, exec string, may bool) bool {
	var pid uint32
	ok, definite := j.call(ctx, "start of "+j.name(exec), may, func(ctx context.Context) (err error) {
		pid, err = j.s.c.Start(ctx, j.id, exec)
		return err
	})
	if definite {
		j.answered(order.Answer{Call: order.CallStart, Container: j.id, Exec: exec, Failed: !ok, Pid: pid})
	}
	return ok
}

// exec adds a process.
func (j *job) exec(ctx context.Context, exec string, may bool, p *specs.Process) bool {
	ok, definite := j.call(ctx, "exec of "+j.name(exec), may, func(ctx context.Context) error {
		return j.s.c.Exec(ctx, j.id, exec, p, daemon.Stdio{})
	})
	if definite {
		j.answered(order.Answer{Call: order.CallExec, Container: j.id, Exec: exec, Failed: !ok})
	}
	return ok
}

// anyStatus is for wait where the status depends on who was faster.
const anyStatus = -1

// wait waits for the end and looks at the status.
func (j *job) wait(ctx context.Context, exec string, status int) bool {
	var e daemon.Exit
	ok, _ := j.call(ctx, "wait for "+j.name(exec), false, func(ctx context.Context) (err error) {
		e, err = j.s.c.Wait(ctx, j.id, exec)
		return err
	})
	if ok {
		j.answered(order.Answer{Call: order.CallWait, Container: j.id, Exec: exec, Status: e.Status, At: e.At})
		if status != anyStatus && e.Status != uint32(status) {
			j.s.problem("wait for %s answered status %d, it was %d", j.name(exec), e.Status, status)
		}
	}
	return ok
}

// kill sends SIGKILL.
func (j *job) kill(ctx context.Context, exec string, may bool) bool {
	ok, _ := j.call(ctx, "kill of "+j.name(exec), may, func(ctx context.Context) error {
		err := j.s.c.Kill(ctx, j.id, exec, uint32(unix.SIGKILL), false)
		j.mayForget("kill", exec, err)
		return err
	})
	return ok
}

// delete deletes an exec, or the task; started says whether there is an exit
// whose status the answer must repeat.
func (j *job) delete(ctx context.Context, exec string, started bool) bool {
	var e daemon.Exit
	ok, definite := j.call(ctx, "delete of "+j.name(exec), false, func(ctx context.Context) (err error) {
		e, err = j.s.c.Delete(ctx, j.id, exec)
		j.mayForget("delete", exec, err)
		return err
	})
	if definite && (started || exec == "") {
		j.answered(order.Answer{Call: order.CallDelete, Container: j.id, Exec: exec, Failed: !ok, Pid: e.Pid, Status: e.Status, At: e.At})
	}
	return ok
}

// mayForget notes an answer that says of a living init that it is not there: a client
// forgets the container then (F01, FAULTS.md).
func (j *job) mayForget(call, exec string, err error) {
	pid := j.init.Load()
	if exec != "" || pid == 0 || !errdefs.IsNotFound(err) {
		return
	}
	groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	stat, statErr := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	// The number may be another's by now; the cgroup is not.
	if statErr == nil && !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X") && strings.Contains(string(groups), "/"+j.id) {
		j.s.problem("%s of %s answered NotFound, and its init, %d, lives: %v", call, j.id, pid, err)
	}
}

// end waits for init, deletes the task at once, and the record.
func (j *job) end(ctx context.Context, status int) {
	if !j.wait(ctx, "", status) {
		j.rescue(ctx)
	}
	j.deleteAll(ctx)
}

// deleteAll deletes the task and the record.
func (j *job) deleteAll(ctx context.Context) {
	if !j.delete(ctx, "", true) {
		j.rescue(ctx)
	}
	j.forget(ctx)
}

// forget deletes the record.
func (j *job) forget(ctx context.Context) {
	j.call(ctx, "deleting the record of "+j.id, false, func(ctx context.Context) error {
		return j.s.c.DeleteContainer(ctx, j.id)
	})
}

// rescue ends what a shim that failed has left of the container, so that the
// storm can go on; that it was needed is already noted.
func (j *job) rescue(ctx context.Context) {
	procs, _ := filepath.Glob("/sys/fs/cgroup/*/" + j.s.d.Tag() + "/" + j.id + "/cgroup.procs")
	for _, file := range append(procs, "/sys/fs/cgroup/"+j.s.d.Tag()+"/"+j.id+"/cgroup.procs") {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		for _, pid := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(pid); err == nil {
				j.s.d.KillOne(n)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, j.s.cfg.Bound)
	defer cancel()
	_, _ = j.s.c.Wait(ctx, j.id, "")
}

// pause waits a random while, at most d: the moment of what follows is what
// the scenario varies.
func (j *job) pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(time.Duration(j.rand.Int64N(int64(d)))):
	case <-ctx.Done():
	}
}
