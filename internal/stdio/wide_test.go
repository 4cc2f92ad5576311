package stdio

import (
	"io"
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// resized is a kernel that tells of every size that a pipe was given, or refuses them all.
type resized struct {
	kernel
	sizes  chan int
	refuse error
}

func (r resized) setPipeSize(fd, size int) error {
	if r.refuse != nil {
		return r.refuse
	}
	err := r.kernel.setPipeSize(fd, size)
	if err == nil {
		r.sizes <- size
	}
	return err
}

// stream is a pump between two pipes, with their other ends.
type stream struct {
	*pump
	k   *resized
	in  *os.File // written by the process
	out *os.File // read by the client
}

func newStream(t *testing.T) stream {
	t.Helper()
	src, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	k := &resized{kernel: host{}, sizes: make(chan int, 8)}
	dst, err := newSink(k, slog.New(slog.DiscardHandler), output{file: to, keep: -1}, true)
	if err != nil {
		t.Fatal(err)
	}
	p := &pump{k: k, buffers: &buffers{}, src: src, dst: dst, splice: true}
	if p.raw, err = src.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.leaveWide()
		dst.close()
		for _, f := range []*os.File{src, in, out} {
			f.Close()
		}
	})
	return stream{p, k, in, out}
}

// flood is a streak that is just long enough.
func (s stream) flood() {
	for n := 0; n < wideWorth; n += spliceWorth {
		s.flows(spliceWorth)
	}
}

func (s stream) want(t *testing.T, when string, src, dst int) {
	t.Helper()
	gotSrc, err := s.k.pipeSize(int(s.src.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	gotDst, err := s.k.pipeSize(int(s.dst.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if gotSrc != src || gotDst != dst {
		t.Errorf("%s: the pipes hold %d and %d bytes, want %d and %d", when, gotSrc, gotDst, src, dst)
	}
}

const usual = 64 << 10 // what a pipe holds (pipe(7))

// The pipes are large while much is moved, and as they were a while after the last of it,
// without a byte to wake the pump for that.
func TestPipesAreWideWhileMuchFlows(t *testing.T) {
	s := newStream(t)
	before := wideStreams.Load()
	for n := 0; n < wideWorth-spliceWorth; n += spliceWorth {
		s.flows(spliceWorth)
	}
	s.flows(spliceWorth - 1)
	s.flows(spliceWorth)
	if len(s.k.sizes) != 0 {
		t.Error("enlarged for a streak that was broken")
	}
	s.flood()
	for range 2 {
		if got := <-s.k.sizes; got != wideSize {
			t.Errorf("a pipe is made to hold %d bytes", got)
		}
	}
	s.flood()
	if len(s.k.sizes) != 0 || wideStreams.Load() != before+1 {
		t.Errorf("%d further changes, %d wide streams", len(s.k.sizes), wideStreams.Load()-before)
	}

	ended := make(chan struct{})
	go func() { defer close(ended); s.run() }()
	for range 2 {
		if got := receive(t, s.k.sizes); got != usual {
			t.Errorf("a pipe is made to hold %d bytes at rest", got)
		}
	}
	got := collect(s.out)
	if _, err := s.in.WriteString("and it goes on"); err != nil {
		t.Fatal(err)
	}
	s.in.Close()
	receive(t, ended)
	s.dst.close()
	if text := receive(t, got); text != "and it goes on" {
		t.Errorf("%q came", text)
	}
	if n := wideStreams.Load(); n != before {
		t.Errorf("%d wide streams are left", n-before)
	}
}

// What the client has not read does not fit into the smaller pipe: it stays large, and
// counted, until the end of the next streak.
func TestFullPipeStaysWide(t *testing.T) {
	s := newStream(t)
	before := wideStreams.Load()
	s.flood()
	if err := s.dst.write(make([]byte, usual+4096)); err != nil {
		t.Fatal(err)
	}
	s.rested()
	s.want(t, "unread", usual, wideSize)
	if wideStreams.Load() != before+1 {
		t.Error("it is not counted any more")
	}
	if _, err := io.CopyN(io.Discard, s.out, usual+4096); err != nil {
		t.Fatal(err)
	}
	s.flood()
	s.rested()
	s.want(t, "read", usual, usual)
	if wideStreams.Load() != before {
		t.Error("it is still counted")
	}
}

// A size that the client has given its FIFO is the client's.
func TestSizeOfTheClientIsKept(t *testing.T) {
	s := newStream(t)
	if err := s.k.kernel.setPipeSize(int(s.out.Fd()), 2*wideSize); err != nil {
		t.Fatal(err)
	}
	s.flood()
	s.want(t, "large before", wideSize, 2*wideSize)
	s.rested()
	s.want(t, "large before, rested", usual, 2*wideSize)

	s = newStream(t)
	s.flood()
	if err := s.k.kernel.setPipeSize(int(s.out.Fd()), 2*wideSize); err != nil {
		t.Fatal(err)
	}
	s.rested()
	s.want(t, "large meanwhile", usual, 2*wideSize)
}

// Beyond the bound, and where the kernel refuses, a stream is what it was before.
func TestWideStreamsAreBounded(t *testing.T) {
	before := wideStreams.Load()
	all := make([]stream, wideStreamsMax-before)
	for i := range all {
		all[i] = newStream(t)
		all[i].flood()
		all[i].want(t, "within the bound", wideSize, wideSize)
	}
	late := newStream(t)
	late.flood()
	late.want(t, "beyond the bound", usual, usual)
	all[0].rested()
	late.flood()
	late.want(t, "after another's end", wideSize, wideSize)
	late.rested()
	for _, s := range all[1:] {
		s.leaveWide()
	}
	refused := newStream(t)
	refused.k.refuse = unix.EPERM // beyond pipe-user-pages-soft, without the capability
	refused.flood()
	refused.want(t, "refused", usual, usual)
	if n := wideStreams.Load(); n != before {
		t.Errorf("%d wide streams are left", n-before)
	}
}
