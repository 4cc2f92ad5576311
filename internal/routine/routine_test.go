package routine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// capture is a log that can be read while it is written.
type capture struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *capture) log() *slog.Logger { return slog.New(slog.NewTextHandler(c, nil)) }

func (c *capture) has(t *testing.T, n int, text string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if got := strings.Count(c.b.String(), text); got != n {
		t.Errorf("%q is logged %d times, not %d:\n%s", text, got, n, c.b.String())
	}
}

// TestF13DebtsAreClosed: a panic ends its goroutine alone, and every debt is
// closed, also when closing another one panics or fails.
func TestF13DebtsAreClosed(t *testing.T) {
	for _, panics := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var c capture
			var closed []string
			debt := func(name string, then func()) Debt {
				return DebtFunc(func() { closed = append(closed, name); then() })
			}
			Go(c.log(), "worker", func() {
				if panics {
					panic("one")
				}
			}, debt("last", func() {}), debt("middle", func() { panic("two") }), debt("first", func() {}), failing{})
			synctest.Wait()
			if got := strings.Join(closed, " "); got != "first middle last" {
				t.Errorf("closed %q", got)
			}
			c.has(t, 1, "panic=two")
			c.has(t, 1, "a debt cannot be closed")
			if panics {
				c.has(t, 1, "panic=one")
				c.has(t, 2, "stack=")
			}
		})
	}
}

type failing struct{}

func (failing) Close() error { return errors.New("a debt cannot be closed") }

// TestF13KeepCallsAgain: what has to run is called again after a panic, not in a
// busy loop, until it returns.
func TestF13KeepCallsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c capture
		calls, over, begun := 0, false, time.Now()
		Keep(c.log(), "loop", func() {
			if calls++; calls <= 12 {
				panic("again")
			}
		}, DebtFunc(func() { over = true }))
		time.Sleep(time.Minute)
		synctest.Wait()
		if calls != 13 || !over {
			t.Errorf("called %d times, over: %v", calls, over)
		}
		c.has(t, 12, "panic=again")
		if took := time.Since(begun); took < 5*maxPause {
			t.Errorf("twelve panics in %v", took)
		}
	})
}

// TestF13Timers: a panic in a function that a timer or the end of a context calls
// is logged and ends nothing else.
func TestF13Timers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c capture
		AfterFunc(c.log(), "timer", time.Second, func() { panic("late") })
		ctx, cancel := context.WithCancel(t.Context())
		AfterContext(ctx, c.log(), "context", func() { panic("over") })
		cancel()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		c.has(t, 1, "in=timer panic=late")
		c.has(t, 1, "in=context panic=over")
	})
}
