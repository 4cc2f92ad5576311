package bootstrap

import (
	"encoding/binary"
	"io"
	"net"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larkshim/lark/internal/bundle"
)

// Whatever a peer sends, the server survives it and its other connections are answered
// (row 64).
func FuzzConnection(f *testing.F) {
	good := callFrame(f, 1)
	f.Add(good)
	f.Add(good[:7])
	f.Add(append(append([]byte{}, good...), good...))
	f.Add(frame(0xffffffff, 1, typeRequest, nil))
	f.Add(frame(3, 2, typeRequest, []byte{0x0a, 0xff, 0xff}))
	f.Add(append(append([]byte{}, good...), frame(0, 1, 3, nil)...))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	_, _, socket, _ := serveQuick(f)
	other := dialQuick(f, socket)
	f.Fuzz(func(t *testing.T, data []byte) {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		go func() { answered <- wholeFrames(conn) }()
		_, _ = conn.Write(data) // the server may have ended it by then
		_ = conn.(*net.UnixConn).CloseWrite()
		if err := <-answered; err != nil {
			t.Errorf("%q was answered by what is no message: %v", data, err)
		}
		if err := callConnect(t.Context(), other); err != nil {
			t.Fatalf("after %q: %v", data, err)
		}
	})
}

// wholeFrames reads answers to the end, of which the last may be cut off.
func wholeFrames(r io.Reader) error {
	for {
		var header [frameHeader]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return nil
		}
		length := binary.BigEndian.Uint32(header[:])
		if length > maxFrame || header[frameTypeByte] != typeResponse {
			return io.ErrUnexpectedEOF
		}
		if _, err := io.CopyN(io.Discard, r, int64(length)); err != nil {
			return nil
		}
	}
}

// A group's name, which an annotation gives, stays in its namespace and its socket in
// its directory.
func FuzzGroup(f *testing.F) {
	for _, s := range []string{"", "a", "../x", "a/b", "/a", ".", "a//b", "a\x00", "a/../../b", strings.Repeat("g", 1000)} {
		f.Add(s, s)
	}
	id, err1 := bundle.ParseContainerID("c1")
	ns, err2 := bundle.ParseNamespace("ns")
	if err1 != nil || err2 != nil {
		f.Fatal(err1, err2)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		group, err := groupOf(map[string]string{groupAnnotations[0]: a, groupAnnotations[1]: b}, id)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("error %q", err)
			}
			return
		}
		if joined := path.Join("/grpc", "ns", group); !strings.HasPrefix(joined, "/grpc/ns/") {
			t.Errorf("group %q is %s", group, joined)
		}
		socket, err := socketPath("/run/s", "/grpc", ns, group)
		if err != nil || path.Dir(socket) != "/run/s" {
			t.Errorf("group %q: socket %q, %v", group, socket, err)
		}
	})
}
