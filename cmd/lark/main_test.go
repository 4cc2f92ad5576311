package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/run"
)

func TestStatus(t *testing.T) {
	for name, c := range map[string]struct {
		out  run.Outcome
		want int
	}{
		"ended well":      {run.Outcome{}, 0},
		"its own":         {run.Outcome{Status: 3}, 3},
		"ended by us":     {run.Outcome{Status: 137, Ended: true}, 0},
		"interrupted":     {run.Outcome{Status: 137, Interrupted: true}, 137},
		"order broken":    {run.Outcome{Violations: []order.Violation{{}}}, 1},
		"broken, status":  {run.Outcome{Status: 3, Violations: []order.Violation{{}}}, 1},
		"exec not run":    {run.Outcome{FailedExecs: 1, Ended: true}, 1},
		"signalled, 255+": {run.Outcome{Status: 255}, 255},
	} {
		err := status(&c.out)
		var code exitCode
		errors.As(err, &code)
		if int(code) != c.want || (err == nil) != (c.want == 0) {
			t.Errorf("%s: got %v, want %d", name, err, c.want)
		}
	}
}

func TestHelp(t *testing.T) {
	for args, want := range map[string]string{
		"run --help": "Exit status:",
		"version":    "lark ",
		"--help":     "run",
	} {
		var out bytes.Buffer
		cmd := rootCommand()
		cmd.SetOut(&out)
		cmd.SetArgs(strings.Fields(args))
		if err := cmd.Execute(); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("lark %s: no %q in %q, %v", args, want, out.String(), err)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range []string{"nonsense", "run --no-such-flag", "run --rootfs a --bundle b", "version more"} {
		cmd := rootCommand()
		cmd.SetOut(&bytes.Buffer{})
		cmd.SetErr(&bytes.Buffer{})
		cmd.SetArgs(strings.Fields(args))
		if err := cmd.Execute(); err == nil {
			t.Errorf("lark %s was accepted", args)
		}
	}
}
