package bootstrap

import (
	"context"
	"fmt"
	"io"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/routine"
)

// dialect is what a generation of containerd expects of start.
type dialect int

const (
	plain     dialect = iota // up to 1.6: the bare address
	legacy                   // 1.7 to 2.2: JSON, version 2
	bootstrap                // 2.3 and later: BootstrapParams came, version 3
)

// request is what start was asked for.
type request struct {
	dialect     dialect
	grpcAddress string
	// ttrpcAddress is where events go; from the parameters, "" if the environment
	// has to tell.
	ttrpcAddress string
	socketDir    string // "" for the default
	logLevel     int    // as in log/slog
	options      *options.Options
}

// readInput reads to the end, within bounds of size and time.
func readInput(r io.Reader, limit int64, timeout time.Duration) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1) // the reader may outlive us: the process ends soon
	routine.Go(nil, "reading of the input", func() {
		data, err := io.ReadAll(io.LimitReader(r, limit+1))
		done <- result{data, err}
	})
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case r := <-done:
		if int64(len(r.data)) > limit {
			return nil, fmt.Errorf("more than %d bytes of input: %w", limit, errdefs.ErrInvalidArgument)
		}
		return r.data, r.err
	case <-timer.C:
		return nil, fmt.Errorf("the input did not end within %v: %w", timeout, context.DeadlineExceeded)
	}
}

// parseRequest finds out which generation of containerd wrote the input, and what
// it wants. hasMax says that MAX_SHIM_VERSION is set.
//
// BootstrapParams and the Any of old cannot be told apart by their bytes: both have
// strings in fields 1 and 2. But parameters name the container and its namespace, as
// the command line does, and a type URL never has the form of a container's id.
func parseRequest(input []byte, ns bundle.Namespace, id bundle.ContainerID, address string, hasMax bool) (*request, error) {
	var p bootapi.BootstrapParams
	if err := proto.Unmarshal(input, &p); err == nil && p.InstanceID == id.String() && p.Namespace == ns.String() {
		return parseParams(&p, address)
	}
	r := &request{dialect: plain, grpcAddress: address}
	if hasMax {
		r.dialect = legacy
	}
	var a anypb.Any
	if err := proto.Unmarshal(input, &a); err != nil {
		return nil, fmt.Errorf("%d bytes of input are neither bootstrap parameters nor options: %w: %w", len(input), errdefs.ErrInvalidArgument, err)
	}
	var err error
	r.options, err = bundle.DecodeOptions(&a)
	return r, err
}

func parseParams(p *bootapi.BootstrapParams, address string) (*request, error) {
	r := &request{
		dialect:      bootstrap,
		grpcAddress:  p.ContainerdGrpcAddress,
		ttrpcAddress: p.ContainerdTtrpcAddress,
		socketDir:    p.GetSocketDir(),
		logLevel:     int(p.LogLevel), // its numbers are those of log/slog
		options:      &options.Options{},
	}
	if r.grpcAddress == "" {
		r.grpcAddress = address
	}
	for _, ext := range p.Extensions {
		o, err := bundle.DecodeOptions(ext.GetValue())
		if err != nil {
			// Extensions that are not for us are to be passed over; but options that
			// are broken are not.
			if isOptions(ext.GetValue()) {
				return nil, err
			}
			continue
		}
		if ext.GetValue() != nil {
			r.options = o
		}
	}
	return r, nil
}

func isOptions(a *anypb.Any) bool {
	switch a.MessageName() {
	case "containerd.runc.v1.Options", "runtimeoptions.v1.Options":
		return true
	}
	return false
}
