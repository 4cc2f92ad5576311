package gotest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// script answers each attempt with the next of its parts.
func script(parts ...func(ctx context.Context, skip []string, out io.Writer) error) func(context.Context, []string, io.Writer) error {
	return func(ctx context.Context, skip []string, out io.Writer) error {
		next := parts[0]
		parts = parts[1:]
		return next(ctx, skip, out)
	}
}

func emit(out io.Writer, events ...string) {
	for _, e := range events {
		action, test, _ := strings.Cut(e, " ")
		fmt.Fprintf(out, `{"Action":%q,"Test":%q,"Elapsed":1.5}`+"\n", action, test)
	}
}

func TestRunGoesOnAfterAHangAndACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		suite := &Suite{
			Tests: []string{"TestA", "TestB", "TestC", "TestD"},
			Stall: time.Minute,
			Start: script(
				func(ctx context.Context, skip []string, out io.Writer) error {
					emit(out, "run TestD", "pause TestD", "run TestA", "run TestA/sub", "fail TestA/sub", "fail TestA", "run TestB")
					<-ctx.Done()
					return ctx.Err()
				},
				func(_ context.Context, skip []string, out io.Writer) error {
					if want := []string{"TestA", "TestB"}; !slices.Equal(skip, want) {
						t.Errorf("second attempt skips %v, want %v", skip, want)
					}
					emit(out, "run TestC")
					fmt.Fprintln(out, "panic: not an event")
					return errors.New("exit status 2")
				},
				func(_ context.Context, skip []string, out io.Writer) error {
					emit(out, "run TestD", "pause TestD", "cont TestD", "pass TestD")
					return nil
				},
			),
		}
		results, err := suite.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for test, want := range map[string]Outcome{"TestA": Fail, "TestB": Hang, "TestC": Crash, "TestD": Pass} {
			if got := results[test].Outcome; got != want {
				t.Errorf("%s: %s, want %s", test, got, want)
			}
		}
		if got := results["TestA"].FailedSubtests; !slices.Equal(got, []string{"TestA/sub"}) {
			t.Errorf("failed subtests %v", got)
		}
		if got := results["TestC"].Output; !slices.Contains(got, "panic: not an event") {
			t.Errorf("a crash must show the stray output, has %q", got)
		}
		if got := results["TestD"].Elapsed; got != 1500*time.Millisecond {
			t.Errorf("elapsed %v", got)
		}
	})
}

func TestRunGivesUpOnAProgramThatDoesNotStart(t *testing.T) {
	attempts := 0
	suite := &Suite{Tests: []string{"TestA"}, Stall: time.Minute, Start: func(_ context.Context, _ []string, out io.Writer) error {
		attempts++
		fmt.Fprintln(out, "cannot connect")
		return errors.New("exit status 1")
	}}
	_, err := suite.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "cannot connect") {
		t.Errorf("error %v, want one that shows the output", err)
	}
	if attempts != fruitless {
		t.Errorf("%d attempts, want %d", attempts, fruitless)
	}
}
