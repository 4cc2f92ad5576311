package ttrpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	official "github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// until waits for an event that nothing signals.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in two minutes: %s", what)
		}
	}
}

func frame(length, stream uint32, kind byte, body []byte) []byte {
	b := beginFrame(nil, stream, kind)
	binary.BigEndian.PutUint32(b, length)
	return append(b, body...)
}

// whole is a frame of a request.
func whole(stream uint32, service, method, text string) []byte {
	body := appendRequest(nil, service, method, marshalText(nil, text), 0, nil)
	return frame(uint32(len(body)), stream, typeRequest, body)
}

type answer struct {
	stream uint32
	code   Code
	text   string // of a success
}

// readAnswer reads a response as the official library would.
func readAnswer(t testing.TB, r io.Reader) answer {
	t.Helper()
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		t.Fatalf("no answer: %v", err)
	}
	body := make([]byte, binary.BigEndian.Uint32(h[:]))
	if _, err := io.ReadFull(r, body); err != nil {
		t.Fatal(err)
	}
	var resp official.Response
	if err := proto.Unmarshal(body, &resp); err != nil || h[8] != typeResponse {
		t.Fatalf("type %d, %v", h[8], err)
	}
	return answer{binary.BigEndian.Uint32(h[4:]), Code(resp.GetStatus().GetCode()), string(resp.Payload)}
}

// TestFrames: messages that no client sends are answered, in this order, and
// the connection goes on.
func TestFrames(t *testing.T) {
	client, server := pair(t)
	serve(t, newService(), server)
	flagged := func(stream uint32, flags byte) []byte {
		f := whole(stream, testService, "Echo", "")
		f[9] = flags
		return f
	}
	timed := func(stream uint32, timeout int64) []byte {
		body := appendRequest(nil, testService, "Deadline", nil, timeout, nil)
		return frame(uint32(len(body)), stream, typeRequest, body)
	}
	for _, c := range []struct {
		name string
		send []byte
		want []Code
	}{
		{"a call", whole(1, testService, "Echo", ""), []Code{OK}},
		{"the same stream again", whole(1, testService, "Echo", ""), []Code{InvalidArgument}},
		{"an even stream", whole(2, testService, "Echo", ""), []Code{InvalidArgument}},
		{"stream 0", whole(0, testService, "Echo", ""), []Code{InvalidArgument}},
		{"one byte too long", append(frame(MaxMessage+1, 3, typeRequest, nil), make([]byte, MaxMessage+1)...), []Code{ResourceExhausted}},
		{"an unknown type", frame(3, 3, 77, []byte("abc")), []Code{Unimplemented}},
		{"a response", frame(0, 3, typeResponse, nil), []Code{Unimplemented}},
		{"data without a stream", frame(3, 5, typeData, []byte("abc")), []Code{Unimplemented}},
		{"a stream, its data, a call", slices.Concat(flagged(7, 2), frame(3, 7, typeData, []byte("abc")), whole(9, testService, "Echo", "")), []Code{Unimplemented, OK}},
		{"a stream that is closed", flagged(11, 1), []Code{Unimplemented}},
		{"unknown flags", flagged(13, 0xf0), []Code{OK}},
		{"garbage", frame(4, 15, typeRequest, []byte{0xff, 0xff, 0xff, 0xff}), []Code{InvalidArgument}},
		{"an empty request", frame(0, 17, typeRequest, nil), []Code{Unimplemented}},
		{"a name that is not UTF-8", frame(3, 19, typeRequest, []byte{0x0a, 1, 0xff}), []Code{InvalidArgument}},
		{"a timeout", timed(21, 1), []Code{DeadlineExceeded}},
		{"a timeout before now", timed(23, -1), []Code{DeadlineExceeded}},
		{"the last stream", whole(0xffffffff, testService, "Echo", ""), []Code{OK}},
	} {
		go func() {
			if _, err := client.Write(c.send); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}()
		for _, want := range c.want {
			if got := readAnswer(t, client); got.code != want {
				t.Errorf("%s: %+v, want %d", c.name, got, want)
			}
		}
	}
}

// A message comes in pieces of any size.
func TestPieces(t *testing.T) {
	client, server := pair(t)
	serve(t, newService(), server)
	sent := slices.Concat(whole(1, testService, "Echo", "abc"), whole(3, testService, "Echo", "def"))
	for i := range sent {
		if _, err := client.Write(sent[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	got := []answer{readAnswer(t, client), readAnswer(t, client)}
	slices.SortFunc(got, func(a, b answer) int { return int(a.stream) - int(b.stream) })
	if want := []answer{{1, OK, string(marshalText(nil, "abc"))}, {3, OK, string(marshalText(nil, "def"))}}; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A connection that ends within a message has ended, and nothing is left of it.
func TestHalfMessages(t *testing.T) {
	f := whole(1, testService, "Echo", "some text")
	for n := range f {
		client, server := net.Pipe()
		srv := NewServer(nil)
		newService().register(srv)
		served := make(chan error)
		go func() { served <- srv.NewConn(server).Serve(t.Context()) }()
		if _, err := client.Write(f[:n]); err != nil {
			t.Fatal(err)
		}
		client.Close()
		if err := <-served; err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		srv.Close()
	}
}

// A client that will send no more is answered by the end of the connection.
func TestEndOfInput(t *testing.T) {
	client, server := pair(t)
	srv := NewServer(nil)
	defer srv.Close()
	if err := client.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := srv.NewConn(server).Serve(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// A client that leaves without its answer has left.
func TestClientLeavesUnanswered(t *testing.T) {
	client, server := pair(t)
	srv := NewServer(nil)
	defer srv.Close()
	srv.Register("s", func(context.Context, *Call) ([]byte, error) { return nil, nil }, "m")
	conn := srv.NewConn(server)
	served := make(chan error, 1)
	go func() { served <- conn.Serve(context.Background()) }()
	if _, err := client.Write(whole(1, "s", "m", "")); err != nil {
		t.Fatal(err)
	}
	until(t, "the answer is written", func() bool {
		conn.mu.Lock()
		defer conn.mu.Unlock()
		return conn.sent == 1
	})
	client.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// endless is a connection that one long message comes by.
type endless struct {
	net.Conn
	header []byte
	left   int64
	out    bytes.Buffer
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.header) > 0 {
		n := copy(p, e.header)
		e.header = e.header[n:]
		return n, nil
	}
	n := min(int64(len(p)), e.left)
	if e.left -= n; n == 0 {
		return 0, io.EOF
	}
	return int(n), nil
}

func (e *endless) Write(p []byte) (int, error) { return e.out.Write(p) }
func (e *endless) Close() error                { return nil }

// The payload of the longest message is skipped to its last byte and not kept,
// and of one that is only claimed nothing is allocated.
func TestF02LongestMessageIsSkipped(t *testing.T) {
	for name, c := range map[string]struct {
		length uint32
		left   int64
		answer bool
	}{"the longest": {1<<32 - 1, 1<<32 - 1, true}, "a claim": {MaxMessage, 10, false}} {
		e := &endless{header: frame(c.length, 7, typeRequest, nil), left: c.left}
		srv := NewServer(nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := srv.NewConn(e).Serve(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > MaxMessage/4 {
			t.Errorf("%s: %d bytes were allocated", name, grown)
		}
		if e.left != 0 {
			t.Errorf("%s: %d bytes were left", name, e.left)
		}
		if c.answer {
			if got := readAnswer(t, &e.out); got.stream != 7 || got.code != ResourceExhausted {
				t.Errorf("%s: %+v", name, got)
			}
		} else if e.out.Len() > 0 {
			t.Errorf("%s was answered: % x", name, e.out.Bytes())
		}
	}
}

// FuzzFrames: whatever messages come, the official server and this one answer
// the same streams with the same codes and payloads.
func FuzzFrames(f *testing.F) {
	good := appendRequest(nil, testService, "Echo", marshalText(nil, "hi"), 0, []KeyValue{{"k", "v"}})
	f.Add([]byte{1, 3, 5}, good)
	f.Add([]byte{5, 3, 3, 4, 0, 7}, good)
	f.Add([]byte{1, 255}, appendRequest(nil, testService, "None", nil, 0, nil))
	f.Add([]byte{1}, appendRequest(nil, "none", "Echo", []byte{0xff}, 0, nil))
	f.Add([]byte{1, 3}, appendRequest(nil, testService, "Error", marshalText(nil, "joined code 5"), 1<<40, nil))
	for _, b := range malformed {
		f.Add([]byte{1, 3}, b)
	}
	f.Fuzz(func(t *testing.T, streams, body []byte) {
		var r request
		known := r.parse(body) == nil && string(r.service) == testService
		if m := string(r.method); len(streams) == 0 || len(streams) > 50 || len(body) > 32<<10 ||
			known && m != "Echo" && m != "Error" && newService().methods()[m] != nil {
			return // Hold, and others that answer in a time of their own
		}
		if known && proto.Unmarshal(r.payload, &wrapperspb.StringValue{}) != nil {
			return // whose error the handler of the tests chooses
		}
		var sent []byte
		for _, s := range streams {
			sent = append(sent, frame(uint32(len(body)), uint32(s), typeRequest, body)...)
		}
		ours, theirs := answers(t, sent, len(streams), false), answers(t, sent, len(streams), true)
		if !slices.Equal(ours, theirs) {
			t.Errorf("streams %d, % x:\n%+v, officially\n%+v", streams, body, ours, theirs)
		}
	})
}

// answers returns n answers to messages, sorted.
func answers(t *testing.T, sent []byte, n int, officially bool) []answer {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	svc := newService()
	if officially {
		serveOfficial(t, svc, server)
	} else {
		serve(t, svc, server)
	}
	go func() { _, _ = client.Write(sent) }()
	var got []answer
	for range n {
		a := readAnswer(t, client)
		if a.code != OK {
			a.text = ""
		}
		got = append(got, a)
	}
	slices.SortFunc(got, func(a, b answer) int {
		if a.stream != b.stream {
			return int(a.stream) - int(b.stream)
		}
		return int(a.code) - int(b.code)
	})
	return got
}
