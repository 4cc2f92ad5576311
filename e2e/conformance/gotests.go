package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// goTests runs a package of this module that tests the subject. Those packages enter sandboxes by themselves.
func goTests(name, pkg string) func(context.Context, options) error {
	return func(ctx context.Context, o options) error {
		fmt.Fprintf(os.Stderr, "%s: over %s\n", name, o.shim)
		args := []string{"test", "-count=1", "-timeout", goTestsLimit.String(), "-v"}
		if o.run != "" {
			args = append(args, "-run", o.run)
		}
		command := exec.CommandContext(ctx, "go", append(args, pkg)...)
		command.Env = append(os.Environ(), "LARK_E2E_SHIM="+o.shim)
		command.Stdout, command.Stderr = os.Stdout, os.Stderr
		// go test hands SIGINT on to the test, whose sandbox ends with it.
		command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
		command.WaitDelay = interruptDelay
		return command.Run()
	}
}
