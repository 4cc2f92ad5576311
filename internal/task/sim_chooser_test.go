package task

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"
)

// parked is a goroutine of the shell that waits for the chooser's word.
type parked struct {
	label    string
	outcomes []string
	answer   chan string
}

// chooser decides what happens next: which of the parked goroutines goes on and
// with what outcome, or which action of the world is taken. It follows a script
// where it has one, and its seed after that.
type chooser struct {
	rng *rand.Rand

	mu      sync.Mutex
	parked  []*parked
	serials map[string]int
	// calm: only good outcomes are chosen.
	calm bool

	script []string // lines that are still to be followed
	taken  []string // lines of what was chosen
}

// newChooser follows the script first and the seed after it.
func newChooser(seed uint64, script []string) *chooser {
	return &chooser{
		rng: rand.New(rand.NewPCG(seed, 0x6c61726b)), serials: map[string]int{}, script: script,
	}
}

// ask parks the calling goroutine until the chooser picks one of the outcomes, of
// which the first is the good one.
func (c *chooser) ask(label string, outcomes ...string) string {
	out, _ := c.askUntil(context.Background(), label, outcomes...)
	return out
}

// askUntil is ask for a goroutine that goes on when its context ends.
func (c *chooser) askUntil(ctx context.Context, label string, outcomes ...string) (string, error) {
	p := &parked{outcomes: outcomes, answer: make(chan string, 1)}
	c.mu.Lock()
	c.serials[label]++
	p.label = fmt.Sprintf("%s #%d", label, c.serials[label])
	c.parked = append(c.parked, p)
	c.mu.Unlock()
	select {
	case out := <-p.answer:
		return out, nil
	case <-ctx.Done():
		c.mu.Lock()
		c.parked = slices.DeleteFunc(c.parked, func(o *parked) bool { return o == p })
		c.mu.Unlock()
		select {
		case out := <-p.answer:
			return out, nil
		default:
			return "", context.Cause(ctx)
		}
	}
}

// action is what the world may do of itself.
type action struct {
	label  string
	weight float64
	do     func()
}

// choices is everything that may happen next, in the order of the labels.
func (c *chooser) choices(actions []action) []action {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Clone(actions)
	for _, p := range c.parked {
		for i, out := range p.outcomes {
			weight := 4.0
			if i > 0 {
				weight = 0.8 / float64(len(p.outcomes)-1)
			}
			if c.calm && i > 0 {
				continue
			}
			all = append(all, action{p.label + ": " + out, weight, func() { c.resolve(p, out) }})
		}
	}
	slices.SortFunc(all, func(a, b action) int { return strings.Compare(a.label, b.label) })
	return all
}

func (c *chooser) resolve(p *parked, out string) {
	c.mu.Lock()
	c.parked = slices.DeleteFunc(c.parked, func(o *parked) bool { return o == p })
	c.mu.Unlock()
	p.answer <- out
}

// step lets one thing happen, once all goroutines are at rest; false if nothing
// can.
func (c *chooser) step(actions func() []action) bool {
	synctest.Wait()
	all := c.choices(actions())
	if len(all) == 0 {
		return false
	}
	chosen := c.scripted(all)
	if chosen == nil {
		chosen = c.drawn(all)
	}
	c.taken = append(c.taken, chosen.label)
	chosen.do()
	return true
}

// scripted is the choice of the script's next line that can be taken now. A line
// that cannot is passed over: the code under test may have changed since.
func (c *chooser) scripted(all []action) *action {
	for len(c.script) > 0 {
		line := c.script[0]
		c.script = c.script[1:]
		for i := range all {
			if all[i].label == line {
				return &all[i]
			}
		}
	}
	return nil
}

func (c *chooser) drawn(all []action) *action {
	sum := 0.0
	for _, a := range all {
		sum += a.weight
	}
	x := c.rng.Float64() * sum
	for i := range all {
		if x -= all[i].weight; x < 0 {
			return &all[i]
		}
	}
	return &all[len(all)-1]
}

// sleeps are the actions that let the bubble's clock go on.
func sleeps() []action {
	var all []action
	for _, d := range []time.Duration{time.Millisecond, 300 * time.Millisecond, 5 * time.Second, time.Minute} {
		all = append(all, action{"time " + d.String(), 0.25, func() { time.Sleep(d) }})
	}
	return all
}
