package bundle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// DecodeOptions returns the runtime options of a request; never nil without an
// error, so that "no options" reads as the defaults.
//
// Clients that know the runtime as io.containerd.runc.v2 send
// containerd.runc.v1.Options. For any other name containerd's CRI plugin and
// ctr send runtimeoptions.v1.Options: the handler's table of the configuration
// as TOML, or (ctr --runtime-config-path, and all that containerd 1.6 can do)
// the path of such a file. Keys are those of the runc options, such as
// BinaryName or SystemdCgroup; keys that lark does not know are ignored.
//
// InvalidArgument for any other type, for bytes that do not parse, and for a
// path that is not absolute or not a regular file of bounded size.
func DecodeOptions(a *anypb.Any) (*options.Options, error) {
	if a.GetTypeUrl() == "" && len(a.GetValue()) == 0 {
		return &options.Options{}, nil
	}
	switch name := messageName(a); name {
	case "containerd.runc.v1.Options":
		o := &options.Options{}
		if err := unmarshal(a, o); err != nil {
			return nil, err
		}
		return o, nil
	case "runtimeoptions.v1.Options":
		o := &runtimeoptions.Options{}
		if err := unmarshal(a, o); err != nil {
			return nil, err
		}
		return fromRuntimeOptions(o)
	default:
		return nil, fmt.Errorf("runtime options of type %q: %w", name, errdefs.ErrInvalidArgument)
	}
}

// DecodeCheckpointOptions returns the options of a Checkpoint request, empty
// ones if it has none. InvalidArgument as for [DecodeOptions].
func DecodeCheckpointOptions(a *anypb.Any) (*options.CheckpointOptions, error) {
	o := &options.CheckpointOptions{}
	if a.GetTypeUrl() == "" && len(a.GetValue()) == 0 {
		return o, nil
	}
	if name := messageName(a); name != "containerd.runc.v1.CheckpointOptions" {
		return nil, fmt.Errorf("checkpoint options of type %q: %w", name, errdefs.ErrInvalidArgument)
	}
	if err := unmarshal(a, o); err != nil {
		return nil, err
	}
	return o, nil
}

// messageName is the type without its host: containerd leaves that out, others
// say type.googleapis.com/.
func messageName(a *anypb.Any) string {
	url := a.GetTypeUrl()
	return url[strings.LastIndexByte(url, '/')+1:]
}

func unmarshal(a *anypb.Any, m proto.Message) error {
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return fmt.Errorf("%s of %d bytes: %w: %w", messageName(a), len(a.GetValue()), errdefs.ErrInvalidArgument, err)
	}
	return nil
}

// tomlOptions are the keys of a TOML body. go-toml matches names without
// regard to case, so the spelling of CRI's own documentation and the snake-less
// one both work.
type tomlOptions struct {
	NoPivotRoot   bool
	NoNewKeyring  bool
	ShimCgroup    string
	IoUid         uint32 //nolint:revive // the key's spelling
	IoGid         uint32
	BinaryName    string
	Root          string
	SystemdCgroup bool
	CriuImagePath string
	CriuWorkPath  string
}

func fromRuntimeOptions(r *runtimeoptions.Options) (*options.Options, error) {
	body := r.GetConfigBody()
	if len(body) == 0 && r.GetConfigPath() != "" {
		var err error
		if body, err = readConfigPath(r.GetConfigPath()); err != nil {
			return nil, err
		}
	}
	if len(body) > MaxOptionsSize {
		return nil, fmt.Errorf("runtime options of %d bytes, more than %d: %w", len(body), MaxOptionsSize, errdefs.ErrInvalidArgument)
	}
	var t tomlOptions
	if err := toml.Unmarshal(body, &t); err != nil {
		return nil, fmt.Errorf("runtime options in TOML: %w: %w", errdefs.ErrInvalidArgument, err)
	}
	return &options.Options{
		NoPivotRoot:   t.NoPivotRoot,
		NoNewKeyring:  t.NoNewKeyring,
		ShimCgroup:    t.ShimCgroup,
		IoUid:         t.IoUid,
		IoGid:         t.IoGid,
		BinaryName:    t.BinaryName,
		Root:          t.Root,
		SystemdCgroup: t.SystemdCgroup,
		CriuImagePath: t.CriuImagePath,
		CriuWorkPath:  t.CriuWorkPath,
	}, nil
}

// readConfigPath reads the file a client named. A link is followed: the
// administrator's configuration may be one, and only containerd's own clients,
// which are root's, can name it.
func readConfigPath(path string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("runtime options: path %q is not absolute: %w", path, errdefs.ErrInvalidArgument)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("runtime options: %w: %w", errdefs.ErrInvalidArgument, err)
	}
	defer f.Close()
	return readBounded(f, path, MaxOptionsSize)
}
