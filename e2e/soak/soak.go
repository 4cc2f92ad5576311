// Package soak runs waves of containers for minutes or hours through a real
// containerd and a real OCI runtime, while containerd and shims are killed, and
// holds what the shims tell, what their calls answer and what is left on the
// machine against what was promised. One shim, that of a pod, lives as long as
// the soak and serves more than half of the containers: what it holds at rest
// must not grow.
//
// Calls go through containerd. Events are taken where the shims send them (see
// tap.go), so that what a killed containerd loses is not laid at their door.
package soak

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/internal/order"
)

const (
	// defaultBound is how long any one call may take on a loaded two-core machine.
	defaultBound = 60 * time.Second
	// settleBound is how long events and clean-up may lag behind the last answer.
	settleBound = time.Minute
	// poll is how often is looked for what sends no event.
	poll = 20 * time.Millisecond
	// workers keep two cores busy with runtime calls, and some waiting.
	workers = 8
	// DefaultMost is how many containers there are at most at once.
	DefaultMost = 200
	// DefaultChance is that of each fault in a wave.
	DefaultChance = 0.5

	namespace = "soak"
	podID     = "pod"
)

// Config says what to soak and for how long.
type Config struct {
	Daemon daemon.Config
	// Shim is the path of the shim's binary, containerd-shim-NAME-VERSION.
	Shim string
	// Self is a program that calls Wrap first of all.
	Self string
	// Runc is the OCI runtime; "" for the shim's default.
	Runc     string
	Duration time.Duration
	Waves    int           // at least so many, however long they take
	Most     int           // containers of a wave; DefaultMost when 0
	Chance   float64       // of a fault; DefaultChance when 0; 1 does it even if the wave is over first
	Bound    time.Duration // of a call; defaultBound when 0
	Rest     time.Duration // before a sample; defaultRest when 0
	Seed     uint64        // 0 for one by the clock
	Out      io.Writer     // told of every wave and of everything that is wrong
	// Forgetful leaves an exec running in the pod after every wave, which is a
	// leak like any other to who looks from outside: the soak must see it.
	Forgetful bool
}

// soak is one run.
type soak struct {
	cfg     Config
	dir     string // of our own files
	d       *daemon.Daemon
	c       *daemon.Client
	runtime daemon.Runtime
	rootfs  string
	tap     *tap
	up      *up
	// whole is held for reading by a delete of a task, for writing by who kills
	// containerd or a shim.
	whole    sync.RWMutex
	began    time.Time
	pod      *box
	podCheck *order.Checker // of the pod's own container, which outlives the waves
	podShim  daemon.Proc
	podExecs atomic.Int64
	base     []string // what belongs to the daemon while only the pod runs

	mu       sync.Mutex
	sub      *daemon.Subscription
	groups   map[string]string         // a container's shim
	checks   map[string]*order.Checker // a shim's
	lost     map[string]bool           // shims that were killed
	ends     map[string]*order.Event   // inits' exits, as containerd told them
	oom      map[string]bool
	faults   map[string]int
	counts   order.Counts
	most     int
	problems []string
	found    []order.Violation
}

// Run runs a soak. An error means that it could not be run; what it has shown is
// in the result.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if cfg.Most == 0 {
		cfg.Most = DefaultMost
	}
	if cfg.Chance == 0 {
		cfg.Chance = DefaultChance
	}
	if cfg.Bound == 0 {
		cfg.Bound = defaultBound
	}
	if cfg.Rest == 0 {
		cfg.Rest = defaultRest
	}
	if cfg.Seed == 0 {
		cfg.Seed = uint64(time.Now().UnixNano())
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	dir, err := os.MkdirTemp("/tmp", "lsoak")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s := &soak{
		cfg: cfg, dir: dir, up: newUp(), groups: map[string]string{}, checks: map[string]*order.Checker{},
		lost: map[string]bool{}, faults: map[string]int{}, podCheck: order.New(),
	}
	s.nextWave()
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	result, err := s.run(ctx)
	if stopErr := s.stop(context.WithoutCancel(ctx)); err == nil && stopErr != nil {
		result.Problems = append(result.Problems, "stopping: "+stopErr.Error())
	}
	return result, err
}

// launch starts containerd with the wrapper in its PATH, and the tap.
func (s *soak) launch(ctx context.Context) error {
	name, err := daemon.RuntimeName(s.cfg.Shim)
	if err != nil {
		return err
	}
	if err := os.Symlink(s.cfg.Self, filepath.Join(s.dir, filepath.Base(s.cfg.Shim))); err != nil {
		return err
	}
	events := filepath.Join(s.dir, "events")
	s.cfg.Daemon.ShimDir = s.dir
	s.cfg.Daemon.Env = append(slices.Clone(s.cfg.Daemon.Env), shimEnv+"="+s.cfg.Shim, eventsEnv+"="+events)
	if s.d, err = daemon.Start(ctx, s.cfg.Daemon); err != nil {
		return err
	}
	s.runtime = s.d.Runc(name, s.cfg.Runc)
	s.tap = newTap(events, s.d.Address()+".ttrpc")
	s.tap.group, s.tap.told, s.tap.problem = s.groupOf, s.told, s.problem
	return s.tap.open()
}

func (s *soak) stop(ctx context.Context) error {
	if s.sub != nil {
		s.sub.Close()
	}
	err := s.d.Stop(ctx)
	if closed := s.tap.close(); err == nil {
		err = closed
	}
	return err
}

func (s *soak) run(ctx context.Context) (*Result, error) {
	var err error
	if s.rootfs, err = s.d.Rootfs(); err != nil {
		return nil, err
	}
	if s.c, err = s.d.Client(ctx, namespace); err != nil {
		return nil, err
	}
	if err := s.subscribe(ctx); err != nil {
		return nil, err
	}
	if err := s.makePod(ctx); err != nil {
		return nil, err
	}
	s.began = time.Now()
	var samples []Sample
	waves := 0
	for (time.Since(s.began) < s.cfg.Duration || waves < s.cfg.Waves) && ctx.Err() == nil {
		waves++
		s.runWave(ctx, waves)
		sm, err := s.sample(ctx)
		if err != nil {
			s.problem("the pod's shim cannot be measured: %v", err)
			break
		}
		samples = append(samples, sm)
		fmt.Fprintf(s.cfg.Out, "%6.0f s: wave %d is over; the pod's shim: %d execs, %d goroutines, %d threads, %d descriptors, %d children, private %d KiB, resident %d KiB\n",
			sm.At.Seconds(), waves, sm.Execs, sm.Goroutines, sm.Threads, sm.FDs, sm.Children, sm.Private>>10, sm.RSS>>10)
	}
	s.endPod(ctx)
	return s.result(samples, waves), ctx.Err()
}

// makePod makes the container whose shim is measured.
func (s *soak) makePod(ctx context.Context) error {
	s.pod = s.newBox(podID, podID, boxPlan{})
	s.pod.create(ctx)
	shim, ok := s.d.Shim(podID)
	if !ok {
		return fmt.Errorf("the pod's shim does not run: %q", s.problems)
	}
	s.podShim = shim
	s.base = s.d.Leftovers()
	return nil
}

// endPod ends it, after which nothing may be left at all.
func (s *soak) endPod(ctx context.Context) {
	s.pod.end(ctx)
	s.pod.forget(ctx)
	s.base = nil
	s.settle(ctx, s.podCheck)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finish(podID, s.podCheck)
}

func (s *soak) newBox(id, group string, plan boxPlan) *box {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups[id] = group
	if s.checks[group] == nil {
		s.checks[group] = order.New()
	}
	return &box{s: s, plan: plan, id: id, group: group, check: s.checkOf(id), buried: make(chan struct{})}
}

// checkOf is the checker that judges a container, nil if there is none. The
// caller holds mu.
func (s *soak) checkOf(container string) *order.Checker {
	if container == podID {
		return s.podCheck
	}
	return s.checks[s.groups[container]]
}

func (s *soak) groupOf(container string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groups[container]
}

// told judges one event that a shim has told.
func (s *soak) told(e order.Event) {
	s.mu.Lock()
	check := s.checkOf(e.Container)
	if e.Kind == order.OOM {
		s.oom[e.Container] = true
	}
	s.mu.Unlock()
	if check == nil {
		s.problem("an event of a container that nobody made, or that is long gone: %s of %s/%s", e.Kind, e.Container, e.Exec)
		return
	}
	if e.Kind == order.ExecStarted && s.groupOf(e.Container) == podID {
		s.podExecs.Add(1)
	}
	for _, v := range check.Observe(e) {
		fmt.Fprintln(s.cfg.Out, "violation:", v)
	}
}

// struck says whether the container was told to be out of memory.
func (s *soak) struck(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.oom[id]
}

// subscribe listens to containerd for the ends of containers whose shim is dead.
func (s *soak) subscribe(ctx context.Context) error {
	if s.sub != nil {
		s.sub.Close()
	}
	sub, err := s.c.Subscribe(ctx, func(e daemon.Envelope) {
		if e.Event.Kind == order.Exited && e.Event.Exec == "" && strings.HasPrefix(e.Topic, "/tasks/") {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.ends[e.Event.Container] = &e.Event
		}
	})
	if err == nil {
		s.sub = sub
	}
	return err
}

// loseGroup notes that a shim is being killed.
func (s *soak) loseGroup(group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost[group] = true
}

// exitSeen is the exit of an init, as containerd told it.
func (s *soak) exitSeen(id string) *order.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends[id]
}

func (s *soak) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// problem notes what was wrong apart from the order of events.
func (s *soak) problem(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.cfg.Out, "problem:", line)
	s.problems = append(s.problems, line)
}

// count counts what was done.
func (s *soak) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[what]++
}
