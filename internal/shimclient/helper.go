package shimclient

// Running the shim's binary: its `start` and `delete` helpers, with the arguments,
// environment and input that a daemon gives them.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Era is the age of the daemon that a client pretends to be.
type Era int

// What differs between daemons, seen from the shim.
const (
	// EraAny tries EraBootstrap, and EraOptions with a shim that refuses it: shims from
	// before 2.3 take the parameters for options of an unknown type.
	EraAny Era = iota
	// EraBootstrap is containerd 2.3 and newer: BootstrapParams on standard input.
	EraBootstrap
	// EraOptions is 1.7 to 2.2: the runtime's options on standard input.
	EraOptions
	// EraPlain is 1.6: nothing on standard input, MAX_SHIM_VERSION is not set.
	EraPlain
)

// daemonVersion is what a daemon of EraBootstrap would call itself.
const daemonVersion = "v2.4.2"

// helper is one run of the shim's binary.
func (c Config) helper(ctx context.Context, b *Bundle, action string, opts *anypb.Any) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	address := filepath.Join(c.Home.Dir, "containerd.sock") // nobody listens: it names the shim's socket
	args := []string{"-namespace", c.Namespace, "-address", address, "-publish-binary", self, "-id", b.ID}
	if action == "delete" {
		args = append(args, "-bundle", b.Path)
	}
	if c.Debug {
		args = append(args, "-debug")
	}
	cmd := exec.CommandContext(ctx, c.Binary, append(args, action)...)
	cmd.Dir = b.Path
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2", "TTRPC_ADDRESS="+c.Sink.Address(), "GRPC_ADDRESS="+address, "NAMESPACE="+c.Namespace)
	if c.Era != EraPlain {
		cmd.Env = append(cmd.Env, "MAX_SHIM_VERSION=2") // every daemon says 2, whatever it takes
	}
	// Its own group: Ctrl-C at our terminal is ours to answer, and a helper that hangs
	// is killed with whatever it has forked.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = killTimeout
	if action == "start" {
		in, err := c.input(b, self, address, opts)
		if err != nil {
			return nil, err
		}
		cmd.Stdin = bytes.NewReader(in)
	}
	return cmd, nil
}

// input is what `start` reads.
func (c Config) input(b *Bundle, self, address string, opts *anypb.Any) ([]byte, error) {
	switch {
	case c.Era == EraPlain || c.Era == EraOptions && opts == nil:
		return nil, nil
	case c.Era == EraOptions:
		return proto.Marshal(opts)
	}
	p := &bootapi.BootstrapParams{
		InstanceID: b.ID, Namespace: c.Namespace, ContainerdVersion: daemonVersion,
		ContainerdTtrpcAddress: c.Sink.Address(), ContainerdGrpcAddress: address, ContainerdBinary: self,
	}
	if c.Debug {
		p.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG
	}
	if len(c.Home.Dir) <= maxSocketDir {
		p.SocketDir = &c.Home.Dir
	}
	if opts != nil {
		p.Extensions = []*bootapi.Extension{{Value: opts}}
	}
	return proto.Marshal(p)
}

// started is what a run of `start` brought.
type started struct {
	answer Answer
	era    Era
	begin  time.Time
	took   StartTimes
}

// start runs `start` in the era that is asked for, or in the newest that the shim takes.
// killed ends what a refusing helper may have begun.
func (c Config) start(ctx context.Context, b *Bundle, opts *anypb.Any, killed func() error) (started, error) {
	if c.Era != EraAny {
		return c.runStart(ctx, b, opts)
	}
	c.Era = EraBootstrap
	st, err := c.runStart(ctx, b, opts)
	var refused *exec.ExitError
	if err == nil || ctx.Err() != nil || !errors.As(err, &refused) {
		return st, err
	}
	if err := killed(); err != nil {
		return st, err
	}
	c.Era = EraOptions
	return c.runStart(ctx, b, opts)
}

// runStart runs `start` and parses what it says. The daemon reads both outputs as the
// answer, so a shim that prints anything more is as useless here as there.
func (c Config) runStart(ctx context.Context, b *Bundle, opts *anypb.Any) (started, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cmd, err := c.helper(ctx, b, "start", opts)
	if err != nil {
		return started{}, err
	}
	st := started{era: c.Era, begin: time.Now()}
	out, err := cmd.CombinedOutput()
	st.took.Helper = time.Since(st.begin)
	if err != nil {
		return st, fmt.Errorf("%s start: %w: %s", filepath.Base(c.Binary), errors.Join(err, ctx.Err()), lastLine(string(out), b.Log()))
	}
	st.took.HelperCPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	st.answer, err = ParseAnswer(out)
	return st, err
}

// runDelete runs `delete`: a daemon does it after every shim's end, so that one that
// crashed leaves nothing. The answer is nil when the helper failed.
func (c Config) runDelete(ctx context.Context, b *Bundle) (*taskapi.DeleteResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	cmd, err := c.helper(ctx, b, "delete", nil)
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s delete: %w: %s", filepath.Base(c.Binary), errors.Join(err, ctx.Err()), lastLine(stderr.String(), b.Log()))
	}
	var resp taskapi.DeleteResponse
	if err := proto.Unmarshal(out, &resp); err != nil {
		return nil, fmt.Errorf("%s delete answered %.200q: %w", filepath.Base(c.Binary), out, err)
	}
	return &resp, nil
}

// lastLine is the last line that says something, for an error message.
func lastLine(texts ...string) string {
	for _, t := range texts {
		s := strings.TrimSpace(t)
		if s != "" {
			return s[strings.LastIndexByte(s, '\n')+1:]
		}
	}
	return "it said nothing"
}
