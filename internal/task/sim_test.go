package task

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	ttrpcevents "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/admission"
	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/order/taskevents"
	"github.com/larkshim/lark/internal/outbox"
)

// The simulation of the shell: the service with all its locks and goroutines over
// a simulated kernel, runtime, clock and containerd, in a bubble of
// testing/synctest. A seeded chooser picks what happens next: which call goes on
// and how it ends, which process dies, what a client asks, which client leaves.

var (
	simSeeds    = flag.Uint64("sim.seeds", 300, "how many seeds of the simulation to try")
	simFrom     = flag.Uint64("sim.from", 1, "the first seed of the simulation")
	simFailures = flag.Int("sim.failures", 5, "after how many failing seeds the simulation ends")
)

const (
	// maxSimCalls is how many calls of clients are in flight at most.
	maxSimCalls = 8
	// simSteps is how many choices are made before the world calms down, simCalm
	// how many after it at most.
	simSteps = 100
	simCalm  = 4000
	exitFile = "exit.json"
)

var (
	simContainers = []string{"c1", "c2"}
	simExecs      = []string{"e1", "e2"}
)

// simFigures are what a run of many seeds has reached.
type simFigures struct {
	seeds, choices, steps, events, panics int
	initCells, execCells                  map[[2]int]bool
}

func newSimFigures() *simFigures {
	return &simFigures{initCells: map[[2]int]bool{}, execCells: map[[2]int]bool{}}
}

// simulation is one seed.
type simulation struct {
	*chooser
	kernel  *simKernel
	clients *simClients
	service *Service
	outbox  *outbox.Outbox
	checker *order.Checker
	figures *simFigures
	log     *logBuffer
	ended   bool

	mu      sync.Mutex
	lives   map[*container]*simLife
	current map[string]*simLife
	faults  []string
	// announcements and delivered count the events.
	announcements, delivered int
}

// simulate runs one seed, or the script and then the seed, and returns what was
// wrong and what was chosen.
func simulate(t *testing.T, dir string, seed uint64, script []string, figures *simFigures) (faults, taken []string, log string) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t, dir, seed, script, figures)
		s.run()
		s.calmDown()
		s.finish()
		s.release()
		faults, taken, log = s.faults, s.taken, s.log.String()
	})
	return faults, taken, log
}

func newSimulation(t *testing.T, dir string, seed uint64, script []string, figures *simFigures) *simulation {
	ns, err := bundle.ParseNamespace("sim")
	if err != nil {
		t.Fatal(err)
	}
	s := &simulation{
		chooser: newChooser(seed, script), checker: order.New(), figures: figures, log: &logBuffer{},
		lives: map[*container]*simLife{}, current: map[string]*simLife{},
	}
	s.kernel = newSimKernel(s.chooser)
	log := slog.New(slog.NewTextHandler(io.Writer(s.log), &slog.HandlerOptions{Level: slog.LevelWarn}))
	s.outbox = outbox.New(outbox.Config{Namespace: ns.String(), Transport: s, Log: log})
	s.service = New(Config{
		Namespace: ns, Owner: shared.owner, Cgroups: shared.cgroups, Outbox: s.outbox, Log: log,
		Shutdown: func() { s.ended = true },
	})
	s.service.rooms = s.kernel
	s.service.observe = s.observe
	// What a seed does must not depend on the machine's processors.
	s.service.calls = admission.New(log, admission.Limits{AtOnce: 4})
	for _, fd := range s.service.reserve.fds {
		unix.Close(fd) // thousands of services would hold thousands of them
	}
	s.service.reserve = newReserve(0)
	s.clients = &simClients{s: s, service: s.service, bundles: map[string]string{}}
	for i, id := range simContainers {
		for _, name := range []string{exitFile, "options.json"} {
			os.Remove(filepath.Join(dir, id, name))
		}
		if s.clients.bundles[id], err = simBundle(dir, id, (seed+uint64(i))%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Send is the simulated containerd: it takes an event, or does not.
func (s *simulation) Send(ctx context.Context, req *ttrpcevents.ForwardRequest) error {
	e, err := taskevents.FromAny(req.Envelope.Event, req.Envelope.Timestamp)
	if err != nil {
		return err
	}
	out, err := s.askUntil(ctx, fmt.Sprintf("send %v %s %s", e.Kind, e.Container, e.Exec), "ok", "refused")
	if err != nil {
		return err
	}
	if out == "refused" {
		return errors.New("the simulated containerd refuses")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures.events++
	s.delivered++
	for _, v := range s.checker.Observe(e) {
		s.fault("order: %v", v)
	}
	return nil
}

func (s *simulation) Close() error { return nil }

// actions is what the world may do of itself.
func (s *simulation) actions() []action {
	s.checkWaiters()
	all := append(s.clients.actions(), s.kernel.forks()...)
	for _, p := range s.kernel.alive() {
		all = append(all, action{"dies " + p.name, 0.4, func() { s.die(p) }})
	}
	s.kernel.mu.Lock()
	for id, w := range s.kernel.oom {
		if !w.over {
			all = append(all, action{id, 0.1, func() { go w.killed() }})
		}
	}
	s.kernel.mu.Unlock()
	return append(all, sleeps()...)
}

func (s *simulation) die(p *simProc) {
	s.kernel.mu.Lock()
	defer s.kernel.mu.Unlock()
	if !p.box.frozen {
		s.kernel.die(p, uint32(p.pid%100))
	}
}

func (s *simulation) run() {
	for range simSteps {
		if !s.step(s.actions) {
			break
		}
	}
}

// calmDown lets everything go well from here on, and ends all containers as a
// client would: kill, delete, and again.
func (s *simulation) calmDown() {
	s.chooser.mu.Lock()
	s.calm = true
	s.chooser.mu.Unlock()
	for range 4 {
		for !s.rest() {
		}
		sleeps()[3].do() // what failed is tried again
	}
	s.checkLost()
	for i := range simCalm {
		if s.rest() {
			if s.quiet() {
				return
			}
			s.end(i)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault("not all containers could be ended: %v; waiting: %v", s.service.ids(), s.waiting())
}

// rest lets one parked goroutine go on; true if none is parked.
func (s *simulation) rest() bool {
	synctest.Wait()
	all := s.choices(nil)
	if len(all) == 0 {
		return true
	}
	all[0].do()
	return false
}

// quiet says that there is no container, and that every client but those of Wait
// has its answer.
func (s *simulation) quiet() bool { return len(s.service.ids()) == 0 && s.clients.inFlight() == 0 }

// end asks for the end of every container, and lets time go by for what is
// repeated.
func (s *simulation) end(i int) {
	for _, id := range s.service.ids() {
		switch i % 3 {
		case 0:
			s.clients.begin("kill", id, "")
		case 1:
			s.clients.begin("resume", id, "")
		default:
			s.clients.begin("delete", id, "")
		}
	}
	sleeps()[2].do()
}

func (s *Service) ids() (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.containers {
		ids = append(ids, id)
	}
	return ids
}

func (s *simulation) waiting() (labels []string) {
	s.clients.mu.Lock()
	defer s.clients.mu.Unlock()
	for _, call := range s.clients.calls {
		if !call.over {
			labels = append(labels, call.label)
		}
	}
	return labels
}

// finish judges the whole.
func (s *simulation) finish() {
	s.drain()
	s.replay()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.checker.Finish() {
		if v.Index < 0 && v.Rule != order.AnswerDiffers {
			s.fault("order: %v", v)
		}
	}
	if s.delivered != s.announcements {
		s.fault("%d events were announced, and %d delivered", s.announcements, s.delivered)
	}
	for _, p := range s.kernel.alive() {
		s.fault("%s was left alive", p.name)
	}
	s.kernel.mu.Lock()
	for id, b := range s.kernel.boxes {
		if b.kept {
			continue // the delete command is its last resort
		}
		s.fault("the runtime keeps container %s", id)
	}
	for _, t := range s.kernel.trespasses {
		s.fault("%s", t)
	}
	if s.kernel.streams != 0 {
		s.fault("%d streams were left open", s.kernel.streams)
	}
	s.kernel.mu.Unlock()
	for _, call := range s.clients.calls {
		if call.panicked {
			s.figures.panics++
		}
	}
	s.figures.choices += len(s.taken)
	s.figures.seeds++
}

// drain has every event delivered, and ends the outbox.
func (s *simulation) drain() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.outbox.Drain(context.Background())
	}()
	for range simCalm {
		if !s.rest() {
			continue
		}
		select {
		case <-done:
			s.outbox.Close()
			for !s.rest() {
			}
			return
		default:
			sleeps()[3].do()
		}
	}
	s.outbox.Close()
}

// release ends what a fault has left, so that the bubble can end: what was found
// is to be told, and not that goroutines are left.
func (s *simulation) release() {
	s.kernel.mu.Lock()
	for _, p := range s.kernel.procs {
		p.box.frozen = false
		s.kernel.kill(p)
	}
	for _, p := range s.kernel.procs {
		if !p.closed {
			p.closed = true
			close(p.ready)
		}
	}
	s.kernel.mu.Unlock()
	s.clients.mu.Lock()
	for _, call := range s.clients.calls {
		if !call.over {
			call.cancel()
		}
	}
	s.clients.mu.Unlock()
	for range simCalm {
		s.rest()
	}
}

// simDir is where the bundles of the simulation lie: in memory, if possible.
func simDir(t *testing.T) string {
	if dir, err := os.MkdirTemp("/dev/shm", "lark-sim-"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

// TestSimulation runs the shell over a simulated world, with many seeds, and
// prints the script of every seed that breaks a promise.
func TestSimulation(t *testing.T) {
	dir := simDir(t)
	figures := newSimFigures()
	failed := 0
	for seed := *simFrom; seed < *simFrom+*simSeeds && failed < *simFailures; seed++ {
		faults, taken, log := simulate(t, dir, seed, nil, figures)
		if len(faults) > 0 {
			failed++
			t.Errorf("seed %d:\n%s\nscript:\n%s\nlog:\n%s", seed, strings.Join(faults, "\n"), strings.Join(taken, "\n"), log)
		}
	}
	fmt.Printf("simulation: %d seeds, %d choices, %d steps, %d events, %d panics, cells of init %d, of execs %d\n",
		figures.seeds, figures.choices, figures.steps, figures.events, figures.panics, len(figures.initCells), len(figures.execCells))
}

// TestSimulationScripts follows the scripts of seeds that have shown a fault.
func TestSimulationScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/sim/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("there are no scripts", err)
	}
	for _, name := range scripts {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			faults, taken, log := simulate(t, simDir(t), 1, simLines(string(text)), newSimFigures())
			if len(faults) > 0 {
				t.Errorf("%s\nscript:\n%s\nlog:\n%s", strings.Join(faults, "\n"), strings.Join(taken, "\n"), log)
			}
		})
	}
}

// simLines are the lines of a script that are not comments.
func simLines(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}
