// Command lark is what people type: it runs containers under a runtime shim without a
// daemon, and measures shims against each other.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/log"
	"github.com/spf13/cobra"

	"github.com/larkshim/lark/internal/run"
)

// Exit codes beside those of a container.
const (
	exitBroken = 1   // the order of events was broken, or a check failed
	exitUs     = 125 // lark itself failed, as `docker run` has it
	exitAbort  = 130 // the user did not wait for the end: 128 and SIGINT
)

// exitCode is an error that only says how to exit; what there was to say is said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	// The ttrpc library logs answers that come after their call was given up; whoever
	// presses Ctrl-C causes many of them.
	if err := log.SetLevel("fatal"); err != nil {
		panic(err)
	}
	err := rootCommand().Execute()
	var code exitCode
	switch {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	case errors.Is(err, run.ErrAborted):
		fmt.Fprintln(os.Stderr, "lark:", err)
		os.Exit(exitAbort)
	default:
		fmt.Fprintln(os.Stderr, "lark:", err)
		os.Exit(exitUs)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "lark",
		Short:         "Run containers under a runtime shim, and look at shims",
		Long:          "lark runs containers under a containerd runtime shim without a daemon, shows what the\nshim tells, and checks that it tells it in order.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), benchCommand(), bareHelperCommand(), versionCommand())
	return root
}
