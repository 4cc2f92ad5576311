package run

// The container's standard streams: FIFOs to the shim on one side, our own files on
// the other.

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/containerd/console"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/shimclient"
)

// streams are those of init. With a terminal there is no stderr: the kernel's terminal
// has one output.
type streams struct {
	in, out, err *shimclient.FIFO
	term         console.Console // ours, in raw mode; or nil
	copies       sync.WaitGroup
}

// openStreams makes the FIFOs that this run needs and begins to copy the output.
func (r *runner) openStreams(b *shimclient.Bundle) (*streams, error) {
	s := &streams{}
	var err error
	fail := func(err error) (*streams, error) { s.close(); return nil, err }
	if s.out, err = shimclient.NewOutput(b, "stdout"); err != nil {
		return fail(err)
	}
	s.copy(r.screen.stdout(), s.out.File)
	if !r.o.Terminal {
		if s.err, err = shimclient.NewOutput(b, "stderr"); err != nil {
			return fail(err)
		}
		s.copy(r.screen.stderr(), s.err.File)
	}
	if r.o.Interactive || r.o.Terminal {
		if s.in, err = shimclient.NewInput(b, "stdin"); err != nil {
			return fail(err)
		}
	}
	return s, nil
}

func (s *streams) copy(to io.Writer, from *os.File) {
	s.copies.Go(func() { io.Copy(to, from) }) // ends with the last writer, or by close
}

func path(f *shimclient.FIFO) string {
	if f == nil {
		return ""
	}
	return f.Path
}

func (s *streams) stdinPath() string  { return path(s.in) }
func (s *streams) stdoutPath() string { return path(s.out) }
func (s *streams) stderrPath() string { return path(s.err) }

// attached is called when the shim holds its ends.
func (s *streams) attached() {
	for _, f := range []*shimclient.FIFO{s.in, s.out, s.err} {
		if f != nil {
			f.Attached()
		}
	}
}

// begin connects our input, and our terminal if there is to be one, once init runs.
// Both end with ctx.
func (s *streams) begin(ctx context.Context, r *runner) {
	if r.o.Terminal {
		s.raw(ctx, r)
	}
	if s.in == nil {
		return
	}
	go func() {
		io.Copy(s.in.File, r.o.Stdin) // EPIPE when the container no longer reads
		s.in.File.Close()
		r.shim.CloseIO(ctx, &taskapi.CloseIORequest{ID: r.id, Stdin: true})
	}()
}

// raw puts our terminal into raw mode and passes its size on, now and whenever it
// changes. Without a terminal of our own the container's keeps its default size.
func (s *streams) raw(ctx context.Context, r *runner) {
	term, err := console.ConsoleFromFile(r.o.Stdin)
	if err != nil {
		return
	}
	r.screen.hold()
	if err := term.SetRaw(); err != nil {
		r.screen.note("no raw mode: " + err.Error())
		return
	}
	s.term = term
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	go func() {
		defer signal.Stop(changed)
		for {
			if size, err := term.Size(); err == nil {
				r.shim.ResizePty(ctx, &taskapi.ResizePtyRequest{ID: r.id, Width: uint32(size.Width), Height: uint32(size.Height)})
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
}

// drain waits for the end of the output, within its bound: a process that escaped the
// container could hold the stream open for ever. With ctx done it does not wait at all.
// It gives the terminal back.
func (s *streams) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, outputTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, s.endOutputs)
	s.copies.Wait()
	stop()
	if s.term != nil {
		s.term.Reset()
		s.term = nil
	}
}

func (s *streams) endOutputs() {
	for _, f := range []*shimclient.FIFO{s.out, s.err} {
		if f != nil {
			f.File.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// close may follow drain or come alone.
func (s *streams) close() {
	s.endOutputs()
	s.drain(context.Background())
	for _, f := range []*shimclient.FIFO{s.in, s.out, s.err} {
		if f != nil {
			f.Close()
		}
	}
}
