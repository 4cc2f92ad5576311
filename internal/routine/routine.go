// Package routine starts the shim's goroutines. A panic in a goroutine that
// recovers nothing ends the process, and with the shim the pod: so every
// goroutine of the shim is started here, where a panic is logged with its stack
// and ends that goroutine alone. A test finds every other go statement.
//
// A goroutine that has something to report holds it as a Debt, which is closed
// when the goroutine ends, however it ends.
package routine

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/larkshim/lark/internal/failpoint"
)

// Debt is something that must come to its end. Close ends it as a failure, and
// does nothing if it was settled before.
type Debt interface{ Close() error }

// DebtFunc is a function as a Debt. It is called also after a success.
type DebtFunc func()

// Close calls the function.
func (f DebtFunc) Close() error { f(); return nil }

// The pauses of Keep: a function that panics at once each time must neither
// keep a CPU busy nor flood the log.
const (
	minPause = 10 * time.Millisecond
	maxPause = time.Second
)

// Go runs fn on a goroutine of its own, under a name for the log and for the
// failpoints. When fn has returned or panicked the debts are closed, the last
// first, each also if closing another has panicked. A nil log means slog's
// default.
func Go(log *slog.Logger, name string, fn func(), debts ...Debt) {
	start(log, name, func() {
		failpoint.Step(name)
		fn()
	}, debts)
}

func start(log *slog.Logger, name string, fn func(), debts []Debt) {
	go func() {
		for _, d := range debts {
			defer Guard(log, name, func() { closeDebt(log, name, d) })
		}
		Guard(log, name, fn)
	}()
}

func closeDebt(log *slog.Logger, name string, d Debt) {
	if err := d.Close(); err != nil {
		logger(log).Warn("a goroutine has failed", "goroutine", name, "error", err)
	}
}

// Keep runs fn on a goroutine of its own until fn returns, and calls it again
// after a panic: for what the shim needs as long as it runs. The debts are closed
// when fn has returned.
func Keep(log *slog.Logger, name string, fn func(), debts ...Debt) {
	start(log, name, func() { keep(log, name, fn) }, debts)
}

func keep(log *slog.Logger, name string, fn func()) {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		begun := time.Now()
		if !Guard(log, name, func() {
			failpoint.Step(name)
			fn()
		}) {
			return
		}
		if time.Since(begun) > maxPause {
			pause = minPause
		}
		time.Sleep(pause)
	}
}

// Guard runs fn and reports whether it has panicked, which is logged with the
// stack.
func Guard(log *slog.Logger, name string, fn func()) (panicked bool) {
	defer func() {
		if p := recover(); p != nil {
			panicked = true
			logger(log).Error("panic", "in", name, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	fn()
	return false
}

// AfterFunc is time.AfterFunc with a panic in fn logged.
func AfterFunc(log *slog.Logger, name string, d time.Duration, fn func()) *time.Timer {
	return time.AfterFunc(d, func() { Guard(log, name, fn) })
}

// AfterContext is context.AfterFunc with a panic in fn logged.
func AfterContext(ctx context.Context, log *slog.Logger, name string, fn func()) (stop func() bool) {
	return context.AfterFunc(ctx, func() { Guard(log, name, fn) })
}

func logger(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.Default()
	}
	return log
}
