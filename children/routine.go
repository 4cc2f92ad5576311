package children

// The only place of this package that starts goroutines: a panic in one that
// recovers nothing would end the program, and with a shim its pod.

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"
)

// The pauses after a panic of what must go on.
const (
	panicPauseMin = 10 * time.Millisecond
	panicPauseMax = time.Second
)

// keep runs fn on a goroutine of its own until fn returns, and calls it again
// after a panic. Then it calls over.
func keep(log *slog.Logger, name string, fn, over func()) {
	go func() {
		defer over()
		for pause := panicPauseMin; guard(log, name, fn); pause = min(2*pause, panicPauseMax) {
			time.Sleep(pause)
		}
	}()
}

// afterContext is context.AfterFunc with a panic in fn logged.
func afterContext(ctx context.Context, log *slog.Logger, name string, fn func()) (stop func() bool) {
	return context.AfterFunc(ctx, func() { guard(log, name, fn) })
}

// afterFunc is time.AfterFunc with a panic in fn logged.
func afterFunc(log *slog.Logger, name string, d time.Duration, fn func()) *time.Timer {
	return time.AfterFunc(d, func() { guard(log, name, fn) })
}

// guard runs fn and reports whether it has panicked, which is logged with the
// stack.
func guard(log *slog.Logger, name string, fn func()) (panicked bool) {
	defer func() {
		if p := recover(); p != nil {
			panicked = true
			log.Error("panic", "in", name, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	fn()
	return false
}
