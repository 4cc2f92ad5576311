package ttrpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
)

// No more is read from a client that has a backlog, until one of its requests
// is answered or let in.
func TestRow64BacklogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		srv := NewServer(nil)
		letIn, end := make(chan struct{}), make(chan struct{})
		srv.Register("s", func(_ context.Context, c *Call) ([]byte, error) {
			select {
			case <-letIn:
				c.LetIn()
				c.LetIn() // a second time is no other call
				<-end
			case <-end:
			}
			return nil, nil
		}, "m")
		conn := srv.NewConn(server)
		served := make(chan error, 1)
		go func() { served <- conn.Serve(context.Background()) }()
		go func() {
			body := appendRequest(nil, "s", "m", nil, 0, nil)
			for stream := uint32(1); ; stream += 2 {
				if _, err := client.Write(frame(uint32(len(body)), stream, typeRequest, body)); err != nil {
					return
				}
			}
		}()
		taken := uint64(MaxBacklog + 1)
		is := func(when string) {
			t.Helper()
			synctest.Wait()
			conn.mu.Lock()
			defer conn.mu.Unlock()
			if conn.taken != taken {
				t.Errorf("%s: %d requests were taken, want %d", when, conn.taken, taken)
			}
		}
		is("none was answered")
		letIn <- struct{}{}
		taken++
		is("one was let in")
		end <- struct{}{} // to that one, or to one that was not let in
		is("one has ended, and its answer is not taken")
		buf := make([]byte, headerSize)
		if _, err := io.ReadFull(client, buf); err != nil {
			t.Error(err)
		}
		taken++
		is("its answer was taken")
		client.Close()
		close(end)
		if err := <-served; err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
		srv.Close()
		synctest.Wait()
		if conn.bytes != 0 || conn.running != 0 {
			t.Errorf("%d bytes and %d calls are left", conn.bytes, conn.running)
		}
	})
}

// The backlog is bounded by the length of its requests too.
func TestBacklogBytesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		srv := NewServer(nil)
		end := make(chan struct{})
		srv.Register("s", func(context.Context, *Call) ([]byte, error) { <-end; return nil, nil }, "m")
		conn := srv.NewConn(server)
		served := make(chan error, 1)
		go func() { served <- conn.Serve(context.Background()) }()
		body := appendRequest(nil, "s", "m", make([]byte, 1<<20), 0, nil)
		go func() {
			for stream := uint32(1); ; stream += 2 {
				if _, err := client.Write(frame(uint32(len(body)), stream, typeRequest, body)); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		conn.mu.Lock()
		taken, held := conn.taken, conn.bytes
		conn.mu.Unlock()
		if taken != maxBacklogBytes/uint64(1<<20) || held != int(taken)*len(body) {
			t.Errorf("%d requests of %d bytes were taken", taken, held)
		}
		client.Close()
		close(end)
		<-served
		srv.Close()
		synctest.Wait()
		if conn.bytes != 0 || conn.running != 0 {
			t.Errorf("%d bytes and %d calls are left", conn.bytes, conn.running)
		}
	})
}

// A client that takes no answers holds no more than a bound of them, and its
// handlers, and no other connection.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		srv := NewServer(nil)
		const size = 64 << 10
		srv.Register("s", func(context.Context, *Call) ([]byte, error) { return make([]byte, size), nil }, "m")
		conn := srv.NewConn(server)
		served := make(chan error, 1)
		go func() { served <- conn.Serve(context.Background()) }()
		const n = 100
		go func() {
			body := appendRequest(nil, "s", "m", nil, 0, nil)
			for i := range uint32(n) {
				if _, err := client.Write(frame(uint32(len(body)), 2*i+1, typeRequest, body)); err != nil {
					t.Error(err)
				}
			}
		}()
		synctest.Wait()
		conn.mu.Lock()
		waiting := len(conn.buf)
		conn.mu.Unlock()
		if waiting > maxPending+2*size {
			t.Errorf("%d bytes wait", waiting)
		}
		other, end := net.Pipe()
		second := srv.NewConn(end)
		go func() { served <- second.Serve(context.Background()) }()
		c := NewClient(other, nil)
		if _, err := c.Call(context.Background(), "s", "m", nil); err != nil {
			t.Errorf("another connection: %v", err)
		}
		seen := map[uint32]bool{}
		for range n {
			seen[readAnswer(t, client).stream] = true
		}
		if len(seen) != n {
			t.Errorf("%d answers of %d", len(seen), n)
		}
		synctest.Wait()
		if !conn.Idle() {
			t.Error("not idle when all is answered")
		}
		c.Close()
		client.Close()
		<-served
		<-served
		srv.Close()
	})
}

// A buffer that a long message has made is not kept.
func TestLongBuffersAreNotKept(t *testing.T) {
	if b := kept(make([]byte, 7, maxKept)); cap(b) != maxKept || len(b) != 0 {
		t.Errorf("%d of %d bytes are kept", len(b), cap(b))
	}
	if b := kept(make([]byte, 7, maxKept+1)); b != nil {
		t.Errorf("%d bytes are kept", cap(b))
	}
}

// A refusal does not come into the middle of an answer that is being written.
func TestF02RefusalWaitsForAnAnswersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		srv := NewServer(nil)
		srv.Register("s", func(context.Context, *Call) ([]byte, error) { return make([]byte, 1000), nil }, "m")
		served := make(chan error, 1)
		go func() { served <- srv.NewConn(server).Serve(context.Background()) }()
		body := appendRequest(nil, "s", "m", nil, 0, nil)
		if _, err := client.Write(frame(uint32(len(body)), 1, typeRequest, body)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		begun := make([]byte, 100)
		if _, err := io.ReadFull(client, begun); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write(frame(0, 3, typeData, nil)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		all := io.MultiReader(bytes.NewReader(begun), client)
		if got := readAnswer(t, all); got.stream != 1 || len(got.text) != 1000 {
			t.Errorf("the answer is of stream %d and %d bytes", got.stream, len(got.text))
		}
		if got := readAnswer(t, all); got.stream != 3 || got.code != Unimplemented {
			t.Errorf("the refusal is %+v", got)
		}
		client.Close()
		<-served
		srv.Close()
	})
}
