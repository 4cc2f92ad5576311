package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// wrap packs a message as containerd does: the type without a host.
func wrap(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: data}
}

func TestDecodeOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "options.toml")
	if err := os.WriteFile(file, []byte("Root = '/r'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	runc := &options.Options{BinaryName: "crun", SystemdCgroup: true, IoGid: 7}
	withHost, err := anypb.New(runc)
	if err != nil {
		t.Fatal(err)
	}
	future := wrap(t, runc)
	future.Value = append(future.Value, 0xfa, 0x3f, 1, 'x') // field 1023, a string

	for name, c := range map[string]struct {
		in   *anypb.Any
		want *options.Options
	}{
		"nil":            {nil, &options.Options{}},
		"empty":          {&anypb.Any{}, &options.Options{}},
		"runc":           {wrap(t, runc), runc},
		"with a host":    {withHost, runc},
		"a future field": {future, runc},
		"CRI": {wrap(t, &runtimeoptions.Options{TypeUrl: "x", ConfigBody: []byte(
			"BinaryName = '/usr/bin/crun'\nSystemdCgroup = true\nNoPivotRoot = true\nNoNewKeyring = true\nShimCgroup = '/s'\n" +
				"IoUid = 1\nIoGid = 2\nRoot = '/r'\nCriuImagePath = '/i'\nCriuWorkPath = '/w'\nCriuPath = ''\nSomethingNew = 3\n")}),
			&options.Options{BinaryName: "/usr/bin/crun", SystemdCgroup: true, NoPivotRoot: true, NoNewKeyring: true, ShimCgroup: "/s",
				IoUid: 1, IoGid: 2, Root: "/r", CriuImagePath: "/i", CriuWorkPath: "/w"}},
		"a path":          {wrap(t, &runtimeoptions.Options{ConfigPath: file}), &options.Options{Root: "/r"}},
		"body over path":  {wrap(t, &runtimeoptions.Options{ConfigPath: "/none", ConfigBody: []byte("Root='/b'")}), &options.Options{Root: "/b"}},
		"nothing in TOML": {wrap(t, &runtimeoptions.Options{}), &options.Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := DecodeOptions(c.in)
			if err != nil {
				t.Fatal(err)
			}
			got.ProtoReflect().SetUnknown(nil)
			if !proto.Equal(got, c.want) {
				t.Errorf("DecodeOptions = %v, want %v", got, c.want)
			}
		})
	}
}

func TestRow07DecodeOptionsRefuses(t *testing.T) { // row 7
	cut := wrap(t, &options.Options{BinaryName: "a long enough name"})
	cut.Value = cut.Value[:5]
	for name, a := range map[string]*anypb.Any{
		"unknown type":     {TypeUrl: "containerd.linux.runc.CreateOptions", Value: []byte{1}},
		"no type":          {Value: []byte{8, 1}},
		"truncated":        cut,
		"a wrong message":  wrap(t, &options.CheckpointOptions{Exit: true}),
		"not UTF-8":        {TypeUrl: "containerd.runc.v1.Options", Value: []byte{0x32, 1, 0xff}},
		"TOML that is not": wrap(t, &runtimeoptions.Options{ConfigBody: []byte("BinaryName = ")}),
		"TOML wrong type":  wrap(t, &runtimeoptions.Options{ConfigBody: []byte("BinaryName = 7")}),
		"negative uid":     wrap(t, &runtimeoptions.Options{ConfigBody: []byte("IoUid = -1")}), // row 11
		"uid too large":    wrap(t, &runtimeoptions.Options{ConfigBody: []byte("IoUid = 4294967296")}),
		"too much TOML":    wrap(t, &runtimeoptions.Options{ConfigBody: []byte("#" + strings.Repeat("x", MaxOptionsSize))}),
		"relative path":    wrap(t, &runtimeoptions.Options{ConfigPath: "x.toml"}),
		"missing path":     wrap(t, &runtimeoptions.Options{ConfigPath: "/none/x.toml"}),
		"path to a device": wrap(t, &runtimeoptions.Options{ConfigPath: "/dev/zero"}),
	} {
		t.Run(name, func(t *testing.T) {
			if o, err := DecodeOptions(a); !errdefs.IsInvalidArgument(err) {
				t.Errorf("DecodeOptions = %v, %v", o, err)
			}
		})
	}
}

func TestDecodeCheckpointOptions(t *testing.T) {
	want := &options.CheckpointOptions{Exit: true, ImagePath: "/i"}
	if got, err := DecodeCheckpointOptions(wrap(t, want)); err != nil || !proto.Equal(got, want) {
		t.Errorf("DecodeCheckpointOptions = %v, %v", got, err)
	}
	if got, err := DecodeCheckpointOptions(nil); err != nil || got == nil {
		t.Errorf("of nothing: %v, %v", got, err)
	}
	if _, err := DecodeCheckpointOptions(wrap(t, &options.Options{})); !errdefs.IsInvalidArgument(err) {
		t.Errorf("of runtime options: %v", err)
	}
}

func FuzzDecodeOptions(f *testing.F) {
	for _, a := range []*anypb.Any{
		wrap(f, &options.Options{BinaryName: "runc"}),
		wrap(f, &runtimeoptions.Options{ConfigBody: []byte("BinaryName = 'runc'")}),
	} {
		f.Add(a.TypeUrl, a.Value)
	}
	f.Fuzz(func(t *testing.T, url string, value []byte) {
		o, err := DecodeOptions(&anypb.Any{TypeUrl: url, Value: value})
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("an untyped error: %v", err)
		}
		if (o == nil) == (err == nil) {
			t.Errorf("DecodeOptions = %v, %v", o, err)
		}
	})
}
