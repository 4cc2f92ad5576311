package bootstrap

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/taskapi"
)

// quick is a task service without a process.
type quick struct {
	task.TTRPCTaskService
	release chan struct{} // Wait ends when it is closed
	entered chan struct{} // one token per Wait
}

func (q *quick) State(_ context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	return nil, fmt.Errorf("container %q: %w", r.ID, errdefs.ErrNotFound)
}

func (q *quick) Connect(context.Context, *task.ConnectRequest) (*task.ConnectResponse, error) {
	return &task.ConnectResponse{}, nil
}

func (q *quick) Start(context.Context, *task.StartRequest) (*task.StartResponse, error) {
	panic("a bug")
}

func (q *quick) Exec(context.Context, *task.ExecProcessRequest) (*emptypb.Empty, error) {
	q.entered <- struct{}{}
	<-q.release
	return &emptypb.Empty{}, nil
}

func (q *quick) Wait(context.Context, *task.WaitRequest) (*task.WaitResponse, error) {
	q.entered <- struct{}{}
	<-q.release
	return &task.WaitResponse{}, nil
}

func (q *quick) Pids(context.Context, *task.PidsRequest) (*task.PidsResponse, error) {
	many := make([]*tasktypes.ProcessInfo, maxAnswer/4)
	for i := range many {
		many[i] = &tasktypes.ProcessInfo{Pid: 1 << 20}
	}
	return &task.PidsResponse{Processes: many}, nil
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func serveQuick(t testing.TB) (*quick, *server, string, *syncBuffer) {
	t.Helper()
	return serveQuickAt(t, filepath.Join(t.TempDir(), "s"))
}

func serveQuickAt(t testing.TB, path string) (*quick, *server, string, *syncBuffer) {
	t.Helper()
	q := &quick{release: make(chan struct{}), entered: make(chan struct{}, 2*maxWork)}
	log := &syncBuffer{}
	ns, err := bundle.ParseNamespace("ns")
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(q, ns, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.serve(context.Background(), l) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		s.close()
	})
	return q, s, path, log
}

func dialQuick(t testing.TB, path string) *ttrpc.Client {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestErrorsAndPanicsAreAnswers(t *testing.T) {
	_, _, path, log := serveQuick(t)
	c := dialQuick(t, path)
	err := c.Call(t.Context(), taskapi.V2, "State", &task.StateRequest{ID: "c"}, &task.StateResponse{})
	if err = errgrpc.ToNative(err); !errdefs.IsNotFound(err) {
		t.Errorf("State: %v", err)
	}
	err = c.Call(t.Context(), taskapi.V2, "Start", &task.StartRequest{}, &task.StartResponse{})
	if err = errgrpc.ToNative(err); !errdefs.IsInternal(err) {
		t.Errorf("Start: %v", err)
	}
	if !strings.Contains(log.String(), "panic in a handler") || !strings.Contains(log.String(), "quick).Start") {
		t.Errorf("the stack is not in the log:\n%s", log)
	}
	if err := c.Call(t.Context(), taskapi.V3, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
		t.Errorf("after the panic: %v", err)
	}
	err = c.Call(t.Context(), taskapi.V3, "State", &task.KillRequest{ID: "\xff"}, &task.StateResponse{})
	if err == nil { // not valid UTF-8: it cannot even be sent
		t.Error("an invalid request was taken")
	}
}

// Row 64: a flood of starts is refused at a bound, and State and Kill go on.
func TestRow64ConcurrentCallsAreBounded(t *testing.T) {
	q, _, path, _ := serveQuick(t)
	c := dialQuick(t, path)
	var wg sync.WaitGroup
	refused := make(chan error, maxWork+100)
	for range maxWork + 100 {
		wg.Go(func() {
			if err := c.Call(t.Context(), taskapi.V2, "Exec", &task.ExecProcessRequest{}, &emptypb.Empty{}); err != nil {
				refused <- errgrpc.ToNative(err)
			}
		})
	}
	for range maxWork {
		<-q.entered
	}
	for range 100 {
		if err := <-refused; !errdefs.IsResourceExhausted(err) {
			t.Fatalf("refused with %v", err)
		}
	}
	if err := c.Call(t.Context(), taskapi.V2, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
		t.Errorf("Connect meanwhile: %v", err)
	}
	close(q.release)
	wg.Wait()
	if err := c.Call(t.Context(), taskapi.V2, "Exec", &task.ExecProcessRequest{}, &emptypb.Empty{}); err != nil {
		t.Errorf("Exec afterwards: %v", err)
	}
}

func TestIdleAndClosing(t *testing.T) {
	q, s, path, _ := serveQuick(t)
	c := dialQuick(t, path)
	if !s.idle() {
		t.Error("not idle at the beginning")
	}
	done := make(chan error, 1)
	go func() {
		done <- c.Call(t.Context(), taskapi.V2, "Exec", &task.ExecProcessRequest{}, &emptypb.Empty{})
	}()
	<-q.entered
	if s.idle() {
		t.Error("idle during a call")
	}
	close(q.release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !await(s.idle, time.Minute) {
		t.Error("not idle after the answer")
	}
	s.closing.Store(true)
	err := c.Call(t.Context(), taskapi.V2, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{})
	if err = errgrpc.ToNative(err); !errdefs.IsUnavailable(err) {
		t.Errorf("a call while closing: %v", err)
	}
}

func frame(length, stream uint32, typ byte, payload []byte) []byte {
	b := make([]byte, frameHeader, frameHeader+len(payload))
	binary.BigEndian.PutUint32(b, length)
	binary.BigEndian.PutUint32(b[4:], stream)
	b[frameTypeByte] = typ
	return append(b, payload...)
}

func callFrame(t testing.TB, stream uint32) []byte {
	t.Helper()
	payload, err := proto.Marshal(&ttrpc.Request{Service: taskapi.V2, Method: "Connect"})
	if err != nil {
		t.Fatal(err)
	}
	return frame(uint32(len(payload)), stream, typeRequest, payload)
}

// Row 64: frames that no task client sends are answered, and other connections do not
// notice.
func TestRow64MaliciousFrames(t *testing.T) {
	_, _, path, _ := serveQuick(t)
	good := callFrame(t, 1)
	for name, c := range map[string]struct {
		send     []byte
		answered bool // else there is nothing to answer yet
	}{
		"a call":                    {good, true},
		"two calls at once":         {append(append([]byte{}, good...), callFrame(t, 3)...), true},
		"4 GiB claimed":             {frame(0xffffffff, 1, typeRequest, nil), false},
		"one byte too long":         {frame(maxFrame+1, 1, typeRequest, nil), false},
		"unknown type":              {frame(0, 1, 77, nil), true},
		"data for no stream":        {frame(0, 1, typeData, nil), true},
		"data for a call":           {append(append([]byte{}, good...), frame(0, 1, typeData, nil)...), true},
		"a response":                {frame(0, 1, typeResponse, nil), true},
		"even stream":               {callFrame(t, 2), true},
		"the same stream again":     {append(append([]byte{}, good...), good...), true},
		"garbage for a request":     {frame(4, 1, typeRequest, []byte{0xff, 0xff, 0xff, 0xff}), true},
		"nothing for a request":     {frame(0, 1, typeRequest, nil), true},
		"text":                      {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), false},
		"unknown flags":             {func() []byte { f := callFrame(t, 1); f[frameFlagsByte] = 0xf0; return f }(), true},
		"unknown service":           {func() []byte { return bytes.ReplaceAll(good, []byte("task.v2"), []byte("task.v9")) }(), true},
		"truncated header, then no": {[]byte{0, 0, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(c.send); err != nil {
				t.Fatal(err)
			}
			if c.answered {
				if _, err := io.ReadFull(conn, make([]byte, frameHeader)); err != nil {
					t.Errorf("no answer: %v", err)
				}
			}
			other := dialQuick(t, path)
			if err := other.Call(t.Context(), taskapi.V2, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
				t.Errorf("another connection: %v", err)
			}
		})
	}
}

// W14: an answer waits until the reader is back for the next message, by which the
// library has entered the call in its table.
func TestAnswersWaitForTheReader(t *testing.T) {
	client, srv := net.Pipe()
	defer client.Close()
	c := newPoliced(srv, func(error) {})
	defer c.Close()
	go func() { _, _ = client.Write(callFrame(t, 1)) }()
	if _, err := io.ReadFull(c, make([]byte, len(callFrame(t, 1)))); err != nil {
		t.Fatal(err)
	}
	if c.taken.Load() != 1 || c.idle() {
		t.Fatalf("taken %d, idle %v", c.taken.Load(), c.idle())
	}
	held := make(chan struct{})
	go func() {
		defer close(held)
		c.awaitSettled(1)
	}()
	select {
	case <-held:
		t.Fatal("the answer did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	go func() { _, _ = c.Read(make([]byte, 1)) }() // the reader comes back
	<-held
}

func TestAwaitSettledEndsWithTheConnection(t *testing.T) {
	client, srv := net.Pipe()
	defer client.Close()
	c := newPoliced(srv, func(error) {})
	c.taken.Store(1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.awaitSettled(1)
	}()
	c.Close()
	<-done
}

// No read gives out bytes of two messages, and all bytes come out, whatever the sizes
// of reads and writes.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("abc"), uint8(3), uint8(2))
	f.Add([]byte{}, uint8(1), uint8(1))
	f.Add(bytes.Repeat([]byte{1}, 9000), uint8(200), uint8(7))
	f.Fuzz(func(t *testing.T, payload []byte, chunk, frames uint8) {
		if chunk == 0 || frames == 0 || len(payload)*int(frames) > 32<<10 {
			return
		}
		var sent []byte
		for i := range uint32(frames) {
			sent = append(sent, frame(uint32(len(payload)), 2*i+1, typeRequest, payload)...)
		}
		client, srv := net.Pipe()
		go func() {
			defer client.Close()
			for rest := sent; len(rest) > 0; {
				n, err := client.Write(rest[:min(len(rest), 1000)])
				if err != nil {
					return
				}
				rest = rest[n:]
			}
		}()
		c := newPoliced(srv, func(error) {})
		defer c.Close()
		var got []byte
		size := frameHeader + len(payload)
		buf := make([]byte, chunk)
		for {
			n, err := c.Read(buf)
			if n > 0 && len(got)/size != (len(got)+n-1)/size {
				t.Fatalf("a read of %d bytes at %d crosses messages of %d", n, len(got), size)
			}
			got = append(got, buf[:n]...)
			if want := uint64(len(got) / size); c.taken.Load() != want {
				t.Fatalf("%d bytes of messages of %d: taken %d", len(got), size, c.taken.Load())
			}
			if err != nil {
				break
			}
		}
		if !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes came out of %d", len(got), len(sent))
		}
		// The other way, the same frames as responses in pieces of any size.
		for i := 0; i < len(sent); i += size {
			sent[i+frameTypeByte] = typeResponse
		}
		var fc frameCounter
		var n uint64
		for rest := sent; len(rest) > 0; {
			m := min(len(rest), int(chunk))
			n += fc.count(rest[:m])
			rest = rest[m:]
		}
		if n != uint64(frames) {
			t.Fatalf("%d responses counted of %d", n, frames)
		}
	})
}

func BenchmarkCall(b *testing.B) {
	_, _, path, _ := serveQuick(b)
	c := dialQuick(b, path)
	for b.Loop() {
		if err := c.Call(b.Context(), taskapi.V2, "Connect", &task.ConnectRequest{}, &task.ConnectResponse{}); err != nil {
			b.Fatal(err)
		}
	}
}

// Row 64: no more is read from a client that has maxBacklog requests there which nobody
// has answered or let in, until one is.
func TestRow64BacklogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, end := net.Pipe()
		c := newPoliced(end, func(err error) { t.Error(err) })
		go func() {
			request := frame(0, 1, typeRequest, nil)
			for {
				if _, err := client.Write(request); err != nil {
					return
				}
			}
		}()
		go func() {
			buf := make([]byte, frameHeader)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
			}
		}()
		taken := uint64(maxBacklog + 1)
		is := func(when string) {
			t.Helper()
			synctest.Wait()
			if n := c.taken.Load(); n != taken {
				t.Errorf("%s: %d requests were taken, want %d", when, n, taken)
			}
		}
		is("nobody answers")
		leave := c.begun()
		taken++
		is("one was let in")
		leave()
		is("it has ended, and is not answered")
		go func() { _, _ = io.Copy(io.Discard, client) }()
		for range 2 { // of which the first is that one's
			if _, err := c.Write(frame(0, 1, typeResponse, nil)); err != nil {
				t.Error(err)
			}
		}
		taken++
		is("two were answered")
		c.Close()
		client.Close()
	})
}
