package shimclient

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	eventsapi "github.com/containerd/containerd/api/events"
	forward "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/order"
)

func TestMountsBelow(t *testing.T) {
	const text = `22 1 0:1 / / rw - ext4 /dev/a rw
30 22 0:2 / /tmp/lark-1 rw - tmpfs a rw
31 30 0:3 / /tmp/lark-1/bundles/c/rootfs rw - overlay a rw
32 22 0:4 / /tmp/lark-12/rootfs rw - overlay a rw
33 31 0:5 / /tmp/lark-1/a\040b rw shared:1 - overlay a rw
short line
`
	got := mountsBelow(text, "/tmp/lark-1")
	want := []string{"/tmp/lark-1/bundles/c/rootfs", "/tmp/lark-1/a b", "/tmp/lark-1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestHomeCloseUnmounts: what is mounted below a Home survives its removal.
func TestHomeCloseUnmounts(t *testing.T) {
	home, err := NewHome("")
	if err != nil {
		t.Fatal(err)
	}
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	point := filepath.Join(home.Dir, "point")
	if err := os.Mkdir(point, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, point, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("this test needs to be root: %v", err)
	}
	if err := home.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(source, "precious")); err != nil {
		t.Error("a mounted directory was emptied")
	}
}

func TestBundleIsPrivate(t *testing.T) {
	home, err := NewHome("")
	if err != nil {
		t.Fatal(err)
	}
	b, err := home.NewBundle("c1", &specs.Spec{Version: "1.0.2"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{home.Dir, b.Path, filepath.Join(b.Path, "rootfs")} {
		st, err := os.Stat(p)
		if err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", p, st.Mode(), err)
		}
	}
	if _, err := home.NewBundle("c1", &specs.Spec{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second bundle of the same name: %v", err)
	}
	if err := errors.Join(b.Remove(), home.Close()); err != nil {
		t.Error(err)
	}
}

// TestFIFO: data written before the client's spare end is closed is read, then its end.
func TestFIFO(t *testing.T) {
	home, err := NewHome("")
	if err != nil {
		t.Fatal(err)
	}
	b, err := home.NewBundle("c1", &specs.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := NewOutput(b, "stdout")
	if err != nil {
		t.Fatal(err)
	}
	shimEnd, err := os.OpenFile(out.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	out.Attached()
	go func() {
		shimEnd.WriteString("hello")
		shimEnd.Close()
	}()
	text, err := io.ReadAll(out.File)
	if err != nil || string(text) != "hello" {
		t.Errorf("got %q, %v", text, err)
	}
	out.Close()
	if err := errors.Join(b.Remove(), home.Close()); err != nil {
		t.Error(err)
	}
}

// TestSinkSurvivesNonsense: an event that cannot be read is answered, not passed on.
func TestSinkSurvivesNonsense(t *testing.T) {
	home, err := NewHome("")
	if err != nil {
		t.Fatal(err)
	}
	var got []Event
	sink, err := NewSink(home, slog.New(slog.NewTextHandler(io.Discard, nil)), func(e Event) { got = append(got, e) })
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", sink.Address())
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	events := forward.NewTTRPCEventsClient(client)
	good, err := proto.Marshal(&eventsapi.TaskOOM{ContainerID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*anypb.Any{
		nil,
		{TypeUrl: "containerd.events.TaskExit", Value: []byte{0xff}},
		{TypeUrl: "types.example/containerd.events.TaskOOM", Value: good},
	} {
		if _, err := events.Forward(t.Context(), &forward.ForwardRequest{Envelope: &types.Envelope{Topic: "/x", Event: a}}); err != nil {
			t.Error(err)
		}
	}
	if len(got) == 0 || got[len(got)-1].Task.Kind != order.OOM {
		t.Errorf("got %+v", got)
	}
	for _, e := range got[:len(got)-1] {
		if e.Task.Kind != order.Other {
			t.Errorf("nonsense was taken for %+v", e)
		}
	}
	if err := errors.Join(client.Close(), sink.Close(), home.Close()); err != nil {
		t.Error(err)
	}
}
