package shimclient

import (
	"errors"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

func protoAnswer(t testing.TB, version int32, address, protocol string) string {
	t.Helper()
	text, err := proto.Marshal(&bootapi.BootstrapResult{Version: version, Address: address, Protocol: protocol})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParseAnswer(t *testing.T) {
	const address, socket = "unix:///run/containerd/s/0a1b", "/run/containerd/s/0a1b"
	for name, c := range map[string]struct {
		out     string
		form    Form
		version int
	}{
		"1.6":                    {address, FormAddress, 2},
		"1.6 with newline":       {address + "\n", FormAddress, 2},
		"1.7":                    {`{"version":2,"address":"` + address + `","protocol":"ttrpc"}`, FormJSON, 2},
		"2.0 to 2.2":             {`{"version":3,"address":"` + address + `","protocol":"ttrpc"}`, FormJSON, 3},
		"JSON with more":         {" {\n\"version\":3, \"metadata\":{\"a\":\"b\"},\"address\":\"" + address + "\",\"protocol\":\"ttrpc\"}\n", FormJSON, 3},
		"2.3 and newer":          {protoAnswer(t, 3, address, "ttrpc"), FormProto, 3},
		"2.3 with an old server": {protoAnswer(t, 2, address, "ttrpc"), FormProto, 2},
	} {
		a, err := ParseAnswer([]byte(c.out))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if a.Form != c.form || a.Version != c.version || a.Address != address || a.Socket() != socket {
			t.Errorf("%s: got %+v", name, a)
		}
	}
}

func TestParseAnswerRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		out  string
		want error
	}{
		"nothing":            {" \n", errdefs.ErrInvalidArgument},
		"words":              {"level=warning msg=\"hello\"", errdefs.ErrInvalidArgument},
		"half a JSON":        {`{"version":3,`, errdefs.ErrInvalidArgument},
		"gRPC":               {`{"version":3,"address":"unix:///a","protocol":"grpc"}`, errdefs.ErrNotImplemented},
		"vsock":              {`{"version":3,"address":"vsock://3:1024","protocol":"ttrpc"}`, errdefs.ErrNotImplemented},
		"version 4":          {`{"version":4,"address":"unix:///a","protocol":"ttrpc"}`, errdefs.ErrNotImplemented},
		"version 1":          {protoAnswer(t, 1, "unix:///a", "ttrpc"), errdefs.ErrNotImplemented},
		"proto without all":  {protoAnswer(t, 3, "", ""), errdefs.ErrNotImplemented},
		"relative socket":    {"unix://run/s", errdefs.ErrNotImplemented},
		"socket too long":    {"unix:///" + strings.Repeat("a", 107), errdefs.ErrInvalidArgument},
		"two lines":          {"unix:///a\nunix:///b", errdefs.ErrInvalidArgument},
		"endless":            {"unix:///" + strings.Repeat("a", maxAnswer), errdefs.ErrInvalidArgument},
		"warning and answer": {"warning\nunix:///run/s", errdefs.ErrInvalidArgument},
	} {
		if a, err := ParseAnswer([]byte(c.out)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %+v, %v; want %v", name, a, err, c.want)
		}
	}
}

// FuzzParseAnswer: whatever a shim prints, an accepted answer can be used.
func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{"unix:///a", `{"version":3,"address":"unix:///a","protocol":"ttrpc"}`, protoAnswer(f, 3, "unix:///a", "ttrpc"), "{", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		a, err := ParseAnswer(out)
		if err != nil {
			return
		}
		if !strings.HasPrefix(a.Socket(), "/") || len(a.Socket()) > maxSocketPath || a.Version != taskV2 && a.Version != taskV3 {
			t.Errorf("%q was accepted as %+v", out, a)
		}
	})
}

func TestService(t *testing.T) {
	if s := (Answer{Version: 2}).Service(); s != "containerd.task.v2.Task" {
		t.Error(s)
	}
	if s := (Answer{Version: 3}).Service(); s != "containerd.task.v3.Task" {
		t.Error(s)
	}
}
