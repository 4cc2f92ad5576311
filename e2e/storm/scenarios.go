package storm

// The scenarios, each a way in which shims have gone wrong.

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/larkshim/lark/e2e/daemon"
)

const (
	// raceWindow covers what `runc exec` and `runc start` take here, so that a
	// kill may fall before, into or after them.
	raceWindow = 60 * time.Millisecond
	// racers is how many execs are starting when init is killed.
	racers = 8
	// crowd is how many execs that exit at once run side by side.
	crowd = 6
)

// scenario is a course of one or more containers.
type scenario struct {
	name       string
	containers int // how many it makes
	run        func(context.Context, *job)
}

// scenarios are taken in turn.
var scenarios = []scenario{
	{"early", 1, func(ctx context.Context, j *job) { early(ctx, j, daemon.SpecOpts{Args: []string{"true"}}, 0) }},
	{"execs", 1, func(ctx context.Context, j *job) { execs(ctx, j, false) }},
	{"race", 1, func(ctx context.Context, j *job) { race(ctx, j, daemon.SpecOpts{}) }},
	{"early-host", 1, func(ctx context.Context, j *job) {
		early(ctx, j, daemon.SpecOpts{Args: []string{"sh", "-c", "exit 7"}, HostPID: true}, 7)
	}},
	{"race-host", 1, func(ctx context.Context, j *job) { race(ctx, j, daemon.SpecOpts{HostPID: true}) }},
	{"created-killed", 1, createdKilled},
	{"background", 1, func(ctx context.Context, j *job) { background(ctx, j, false) }},
	{"created-deleted", 1, createdDeleted},
	{"execs-host", 1, func(ctx context.Context, j *job) { execs(ctx, j, true) }},
	{"background-host", 1, func(ctx context.Context, j *job) { background(ctx, j, true) }},
	{"killed-starting", 1, killedStarting},
	{"daemon-host", 1, func(ctx context.Context, j *job) {
		early(ctx, j, daemon.SpecOpts{Args: []string{"sh", "-c", "sleep 1000 & setsid sleep 1000 & exit 3"}, HostPID: true}, 3)
	}},
	{"output", 1, output},
	{"refused", 1, refused},
	{"pod", 3, pod},
	{"steady", 1, steady},
	{"again", 1, again},
}

var forever = []string{"sleep", "1000"}

// early: init exits at once, so that it may be dead before start was answered.
func early(ctx context.Context, j *job, o daemon.SpecOpts, status int) {
	if !j.create(ctx, o, daemon.Stdio{}) {
		return
	}
	var waiters sync.WaitGroup
	for range j.rand.IntN(3) {
		waiters.Go(func() { j.wait(ctx, "", status) }) // waiting since before the start
	}
	j.start(ctx, "", false)
	j.end(ctx, status)
	waiters.Wait()
}

// running creates and starts a container whose init runs until it is killed.
func running(ctx context.Context, j *job, o daemon.SpecOpts) bool {
	if len(o.Args) == 0 {
		o.Args = forever
	}
	return j.create(ctx, o, daemon.Stdio{}) && j.start(ctx, "", false)
}

// killed ends a running container.
func killed(ctx context.Context, j *job) {
	j.kill(ctx, "", false)
	j.end(ctx, 137)
}

// oneExec takes an exec from its adding to its delete. Its status is code.
func oneExec(ctx context.Context, j *job, exec string, code int, args ...string) {
	if !j.exec(ctx, exec, false, daemon.Process(args...)) {
		return
	}
	if j.start(ctx, exec, false) && j.wait(ctx, exec, code) {
		j.delete(ctx, exec, true)
	}
}

// execs: many execs that exit at once, each dead before its start returns.
func execs(ctx context.Context, j *job, host bool) {
	if !running(ctx, j, daemon.SpecOpts{HostPID: host}) {
		return
	}
	var all sync.WaitGroup
	for i := range crowd {
		all.Go(func() { oneExec(ctx, j, fmt.Sprintf("e%d", i), i, "sh", "-c", fmt.Sprintf("exit %d", i)) })
	}
	all.Wait()
	killed(ctx, j)
}

// race: init is killed while execs are starting; some would run on for ever.
// In a shared pid namespace nobody but the shim ends those (W18).
func race(ctx context.Context, j *job, o daemon.SpecOpts) {
	if !running(ctx, j, o) {
		return
	}
	var all sync.WaitGroup
	for i := range racers {
		exec := fmt.Sprintf("r%d", i)
		args := []string{"true"}
		if i%2 == 0 {
			args = forever
		}
		if !j.exec(ctx, exec, false, daemon.Process(args...)) {
			continue
		}
		all.Go(func() { raceExec(ctx, j, exec) })
	}
	j.pause(ctx, raceWindow)
	j.kill(ctx, "", false)
	ended := j.wait(ctx, "", 137)
	if !ended {
		j.rescue(ctx)
	}
	all.Wait()
	j.deleteAll(ctx)
}

// raceExec starts an exec of a container that is being killed. Whether it
// starts is open; if it does it ends. Every second one is left to the task's
// own delete.
func raceExec(ctx context.Context, j *job, exec string) {
	if j.start(ctx, exec, true) && !j.wait(ctx, exec, anyStatus) {
		j.rescue(ctx)
	}
}

// createdKilled: created, killed, never started.
func createdKilled(ctx context.Context, j *job) {
	if j.create(ctx, daemon.SpecOpts{Args: forever, HostPID: j.rand.IntN(2) == 0}, daemon.Stdio{}) {
		killed(ctx, j)
	}
}

// again: after its delete an id can be used again, whatever its container was doing.
func again(ctx context.Context, j *job) {
	first := &job{s: j.s, id: j.id, rand: j.rand, mute: true}
	o := daemon.SpecOpts{Args: forever, HostPID: j.rand.IntN(2) == 0}
	if !first.create(ctx, o, daemon.Stdio{}) {
		return
	}
	if j.rand.IntN(2) == 0 {
		first.start(ctx, "", false)
		first.pause(ctx, raceWindow)
		first.kill(ctx, "", false)
		first.wait(ctx, "", 137)
	}
	first.deleteAll(ctx)
	early(ctx, j, daemon.SpecOpts{Args: []string{"true"}}, 0)
}

// createdDeleted: created, deleted, never started (W3). Delete has to end init.
func createdDeleted(ctx context.Context, j *job) {
	if j.create(ctx, daemon.SpecOpts{Args: forever, HostPID: j.rand.IntN(2) == 0}, daemon.Stdio{}) {
		j.deleteAll(ctx)
	}
}

// killedStarting: init is killed while its start is in flight.
func killedStarting(ctx context.Context, j *job) {
	if !j.create(ctx, daemon.SpecOpts{Args: forever}, daemon.Stdio{}) {
		return
	}
	started := make(chan bool, 1)
	go func() { started <- j.start(ctx, "", true) }()
	j.pause(ctx, raceWindow)
	j.kill(ctx, "", true)
	<-started
	j.kill(ctx, "", true) // the first may have come before there was anything to kill
	j.end(ctx, anyStatus)
}

// background: execs leave children behind. In a pid namespace of the
// container's own they go to its init, else to the shim, which must reap them,
// and kill them when init has died.
func background(ctx context.Context, j *job, host bool) {
	if !running(ctx, j, daemon.SpecOpts{HostPID: host}) {
		return
	}
	oneExec(ctx, j, "left", 4, "sh", "-c", "sleep 1000 & setsid sleep 1000 & exit 4")
	oneExec(ctx, j, "short", 0, "sh", "-c", "true & usleep 1000 & exit 0")
	killed(ctx, j)
}

// refused: what cannot be started must not be told of.
func refused(ctx context.Context, j *job) {
	if !running(ctx, j, daemon.SpecOpts{}) {
		return
	}
	if j.exec(ctx, "none", false, daemon.Process("/no/such/program")) {
		if j.start(ctx, "none", true) {
			j.s.problem("start of %s succeeded, there is no such program", j.name("none"))
		}
		j.delete(ctx, "none", false)
	}
	oneExec(ctx, j, "after", 0, "true")
	killed(ctx, j)
	other := &job{s: j.s, id: j.id + "-none", rand: j.rand}
	if other.tryCreate(ctx, daemon.SpecOpts{Args: []string{"/no/such/program"}}, daemon.Stdio{}, true) {
		// A runtime may find out at start only.
		other.start(ctx, "", true)
		other.kill(ctx, "", true)
		other.end(ctx, anyStatus)
		return
	}
	other.forget(ctx)
}

// pod: containers that share a shim, one of which shares the pid namespace of
// the first; the first outlives the others.
func pod(ctx context.Context, j *job) {
	group := map[string]string{"io.containerd.runc.v2.group": j.id}
	if !running(ctx, j, daemon.SpecOpts{Annotations: group}) {
		return
	}
	pid := 0
	j.call(ctx, "state of "+j.id, false, func(ctx context.Context) error {
		p, err := j.s.c.Status(ctx, j.id, "")
		pid = int(p.GetPid())
		return err
	})
	own := &job{s: j.s, id: j.id + "-own", rand: j.rand}
	shared := &job{s: j.s, id: j.id + "-shared", rand: j.rand}
	var all sync.WaitGroup
	all.Go(func() { early(ctx, own, daemon.SpecOpts{Args: []string{"true"}, Annotations: group}, 0) })
	all.Go(func() {
		if pid != 0 && running(ctx, shared, daemon.SpecOpts{Annotations: group, PIDPath: fmt.Sprintf("/proc/%d/ns/pid", pid)}) {
			oneExec(ctx, shared, "left", 2, "sh", "-c", "sleep 1000 & exit 2")
			killed(ctx, shared)
		}
	})
	all.Wait()
	oneExec(ctx, j, "alive", 0, "true") // the end of the others was not the first's
	killed(ctx, j)
}

// steady: one shim, many execs; its descriptors and children must come back to
// what they were.
func steady(ctx context.Context, j *job) {
	if !running(ctx, j, daemon.SpecOpts{HostPID: true}) {
		return
	}
	oneExec(ctx, j, "first", 0, "true") // what is made with the first exec may stay
	before := j.shimState()
	var all sync.WaitGroup
	for i := range 2 * crowd {
		all.Go(func() { oneExec(ctx, j, fmt.Sprintf("s%d", i), 0, "sh", "-c", "true & true") })
	}
	all.Wait()
	j.settled(ctx, before)
	killed(ctx, j)
}
