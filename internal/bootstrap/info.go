package bootstrap

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/oci"
	"github.com/larkshim/lark/internal/tempdir"
)

// featuresType is how containerd's typeurl names the runtime's features, which are
// packed as JSON.
const featuresType = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"

// info is -info: runtime options in, what the shim and its runtime are out.
func (a App) info(in io.Reader, out io.Writer) error {
	input, err := readInput(in, maxInput, inputTimeout)
	if err != nil {
		return err
	}
	var packed anypb.Any
	if err := proto.Unmarshal(input, &packed); err != nil {
		return fmt.Errorf("runtime options: %w: %w", errdefs.ErrInvalidArgument, err)
	}
	o, err := bundle.DecodeOptions(&packed)
	if err != nil {
		return err
	}
	f, err := queryFeatures(context.Background(), o)
	if err != nil {
		return err
	}
	ri, err := a.runtimeInfo(os.Args[0], &packed, o, f)
	if err != nil {
		return err
	}
	data, err := proto.Marshal(ri)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	_, err = out.Write(data)
	return err
}

// runtimeInfo is the answer. Options are those of runc, whatever they came as; none
// if none came.
func (a App) runtimeInfo(argv0 string, packed *anypb.Any, o *options.Options, f *features.Features) (*types.RuntimeInfo, error) {
	ri := &types.RuntimeInfo{
		Name:    runtimeName(argv0),
		Version: &types.RuntimeVersion{Version: a.Version, Revision: a.Revision},
	}
	if packed.GetTypeUrl() != "" {
		value, err := proto.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("options: %w", err)
		}
		ri.Options = &anypb.Any{TypeUrl: string(o.ProtoReflect().Descriptor().FullName()), Value: value}
	}
	if f != nil {
		value, err := json.Marshal(f)
		if err != nil {
			return nil, fmt.Errorf("features: %w", err)
		}
		ri.Features = &anypb.Any{TypeUrl: featuresType, Value: value}
	}
	return ri, nil
}

// runtimeName is the name by which containerd finds a binary of that name:
// io.containerd.runc.v2 for containerd-shim-runc-v2.
func runtimeName(argv0 string) string {
	name, ok := strings.CutPrefix(filepath.Base(argv0), "containerd-shim-")
	at := strings.LastIndexByte(name, '-')
	if !ok || at < 0 {
		return "io.containerd.lark.v2"
	}
	return "io.containerd." + name[:at] + "." + name[at+1:]
}

// queryFeatures asks the runtime. A runtime that is not there is an error; one that
// does not know the command (crun before 1.8.6) has no features.
func queryFeatures(ctx context.Context, o *options.Options) (*features.Features, error) {
	log := slog.New(slog.DiscardHandler)
	owner, err := children.NewOwner(log)
	if err != nil {
		return nil, err
	}
	defer owner.Close()
	// The runtime wants a place for its log; there is no bundle here.
	dir, err := tempdir.Make("lark-info-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	deadlines := oci.DefaultDeadlines()
	deadlines.Features = infoTimeout
	rt, err := oci.New(oci.Config{Binary: o.GetBinaryName(), Dir: dir, Owner: owner, Log: log, Deadlines: deadlines})
	if err != nil {
		return nil, err
	}
	f, err := rt.Features(ctx)
	if err != nil {
		return nil, nil
	}
	return f, nil
}
