package outbox

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The pauses between attempts: none after the first failure, then doubled from
// minBackoff to maxBackoff.
func TestBackOffGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		var at []time.Time
		d.set(func(context.Context, string) error { at = append(at, time.Now()); return errAway })
		o := start(t, d)
		o.Append(exit(0))
		time.Sleep(5 * time.Second)
		o.Close()
		var pauses []time.Duration
		for i := range 10 {
			pauses = append(pauses, at[i+1].Sub(at[i]))
		}
		const ms = time.Millisecond
		want := []time.Duration{0, 10 * ms, 20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms, maxBackoff, maxBackoff}
		if !slices.Equal(pauses, want) {
			t.Errorf("pauses %v, want %v", pauses, want)
		}
	})
}

// Appending is no movement: a hung containerd is not waited for because events
// are still coming.
func TestPaceSeesThatNothingMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		d.set(hung)
		o := start(t, d)
		defer o.Close()
		fill(o)
		for i := range 10 {
			time.Sleep(paceTime / 2)
			o.Append(exit(i))
		}
		begun := time.Now()
		if o.Pace(t.Context()); time.Since(begun) != 0 {
			t.Errorf("waited %v", time.Since(begun))
		}
	})
}

// Pace waits from paceAt events on.
func TestPaceAtItsBound(t *testing.T) {
	for queued, waits := range map[int]bool{paceAt - 1: false, paceAt: true} {
		synctest.Test(t, func(t *testing.T) {
			d := &daemon{}
			d.set(hung)
			o := start(t, d)
			defer o.Close()
			for i := range queued {
				o.Append(exit(i))
			}
			begun := time.Now()
			if o.Pace(t.Context()); time.Since(begun) > 0 != waits {
				t.Errorf("with %d queued: waited %v", queued, time.Since(begun))
			}
		})
	}
}

// An event that containerd takes in the moment of Close was delivered.
func TestCloseCountsWhatWasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		d.set(func(ctx context.Context, _ string) error { <-ctx.Done(); return nil })
		o := start(t, d)
		o.Append(exit(0))
		synctest.Wait()
		o.Close()
		if s := o.Stats(); s.Queued != 0 || len(d.got()) != 1 {
			t.Errorf("%d queued, %d arrived", s.Queued, len(d.got()))
		}
	})
}

// Close logs what was lost, and nothing if nothing was; Stats lists no kind of
// which nothing was dropped.
func TestCloseLogsLosses(t *testing.T) {
	for name, lose := range map[string]func(o *Outbox){
		"nothing": func(*Outbox) {},
		"dropped": func(o *Outbox) {
			for i := range 3 {
				o.Append(Event{Kind: Note, Topic: "note", Message: exit(i).Message, Container: "c"})
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := &daemon{}
			d.set(away)
			var log bytes.Buffer
			o := New(Config{Transport: d, Limit: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
			lose(o)
			synctest.Wait()
			if n := len(o.Stats().Dropped); n > 1 {
				t.Errorf("%s: %v", name, o.Stats().Dropped)
			}
			d.set(nil)
			if err := o.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			o.Close()
			if lost := strings.Contains(log.String(), "events were not delivered"); lost != (name != "nothing") {
				t.Errorf("%s: logged %q", name, log.String())
			}
		})
	}
}

// The log says how long an outage was.
func TestOutageIsTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{}
		d.set(away)
		var log bytes.Buffer
		o := New(Config{Transport: d, Log: slog.New(slog.NewTextHandler(&log, nil))})
		defer o.Close()
		o.Append(exit(0))
		time.Sleep(time.Hour)
		d.set(nil)
		if err := o.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "after=1h0m0") {
			t.Errorf("the log:\n%s", &log)
		}
	})
}
