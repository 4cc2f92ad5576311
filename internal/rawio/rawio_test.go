package rawio

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// pair is a connection to itself: ours and the other side, which is plain.
func pair(t testing.TB) (*Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	mine, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(mine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); other.Close() })
	return c, other
}

// What is written arrives whole and in order, both ways at once, through buffers that fill up.
func TestTransfer(t *testing.T) {
	c, other := pair(t)
	data := make([]byte, 5<<20)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(data)
	send := func(w io.Writer) <-chan error {
		done := make(chan error, 1)
		go func() {
			n, err := w.Write(data)
			if err == nil && n != len(data) {
				err = io.ErrShortWrite
			}
			done <- err
		}()
		return done
	}
	receive := func(r io.Reader) <-chan error {
		done := make(chan error, 1)
		go func() {
			got := make([]byte, len(data))
			_, err := io.ReadFull(r, got)
			if err == nil && !bytes.Equal(got, data) {
				err = errors.New("what arrives is not what was sent")
			}
			done <- err
		}()
		return done
	}
	for _, done := range []<-chan error{send(c), send(other), receive(c), receive(other)} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// The ends of a connection are told as package net tells them.
func TestEnds(t *testing.T) {
	buf := make([]byte, 1)
	c, other := pair(t)
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("a read of nothing: %d, %v", n, err)
	}
	if n, err := c.Write(nil); n != 0 || err != nil {
		t.Errorf("a write of nothing: %d, %v", n, err)
	}
	if err := c.SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read after its deadline: %v", err)
	}
	full := make([]byte, 1<<20)
	if _, err := c.Write(full); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write after its deadline: %v", err)
	}
	other.Close()
	_ = c.SetDeadline(time.Time{})
	if _, err := c.Read(buf); err != io.EOF {
		t.Errorf("a read behind the end: %v", err)
	}
	var op *net.OpError
	if _, err := c.Write(buf); !errors.Is(err, syscall.EPIPE) || !errors.As(err, &op) || op.Op != "write" {
		t.Errorf("a write to nobody: %v", err)
	}

	c, _ = pair(t)
	read := make(chan error, 1)
	go func() { _, err := c.Read(buf); read <- err }()
	c.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read of what is being closed: %v", err)
	}
	if _, err := c.Write(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write to what was closed: %v", err)
	}
}

// A write that is stopped by its deadline in the middle says how far it came.
func TestPartialWrite(t *testing.T) {
	c, other := pair(t)
	n := 0
	for wait := 50 * time.Millisecond; n == 0; wait *= 2 { // nothing, if the machine stood still
		if err := c.SetWriteDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		var err error
		if n, err = c.Write(make([]byte, 8<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || wait > time.Minute {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	c.Close()
	if got, err := io.Copy(io.Discard, other); err != nil || got != int64(n) {
		t.Errorf("%d bytes arrived (%v), %d were said to be written", got, err, n)
	}
}

// What has no descriptor is refused.
func TestNewRefuses(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := New(a); err == nil {
		t.Error("a connection without a descriptor was taken")
	}
}

// A message there and back leaves no garbage.
func TestNoGarbage(t *testing.T) {
	c, other := pair(t)
	buf, answer := make([]byte, 64), make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := other.Write(buf); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(answer); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(answer); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Read(buf); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v objects for a message there and back", n)
	}
}

// Of a long row of transfers that need not wait every 64th is one that the scheduler is told of.
func TestEvery64thIsWatched(t *testing.T) {
	c, other := pair(t)
	if _, err := other.Write(make([]byte, 3*watchedEvery)); err != nil {
		t.Fatal(err)
	}
	buf, seen := make([]byte, 1), 0
	for range 3 * watchedEvery {
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
		if c.in.row == 0 {
			seen++
		}
	}
	if seen != 3 {
		t.Errorf("%d of %d transfers were ordinary calls", seen, 3*watchedEvery)
	}
}
