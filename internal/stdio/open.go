package stdio

// open.go opens what a plan names, for New. Whatever it has opened is in the IO,
// so that Close frees it if a later step fails.

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
)

func (s *IO) openAll(ctx context.Context, owner *children.Owner, p plan) error {
	if p.terminal {
		return s.openTerminal(ctx, owner, p)
	}
	if err := s.openStdin(p); err != nil {
		return err
	}
	if p.stdout.logger() {
		return s.openLogger(ctx, owner, p)
	}
	return s.openOutputs(p)
}

// openStdin makes the pipe to the process's stdin.
func (s *IO) openStdin(p plan) error {
	if p.stdin.kind == kindNone {
		return nil
	}
	src, err := s.openInput(p.stdin)
	if err != nil {
		return err
	}
	r, w, err := s.pipe("stdin", p, writeSide)
	if err != nil {
		return err
	}
	s.given[0] = r
	dst, err := newSink(s.k, s.log, output{file: w, keep: -1}, true)
	if err != nil {
		return systemError("stdin", err)
	}
	s.input = &pump{k: s.k, buffers: s.buffers, src: src, dst: dst, strict: true, splice: true}
	return nil
}

// openInput opens stdin's FIFO and holds it open.
func (s *IO) openInput(t target) (*os.File, error) {
	src, hold, err := openInput(s.k, t)
	if err != nil {
		return nil, err
	}
	s.held = append(s.held, src)
	s.hold = hold
	return src, nil
}

// openOutputs makes the pipes from the process's stdout and stderr. If both go to
// one place, they share it.
func (s *IO) openOutputs(p plan) error {
	var first *sink
	for i, t := range []target{p.stdout, p.stderr} {
		if t.kind == kindNone {
			continue
		}
		dst := first
		if i == 0 || first == nil || t.path != p.stdout.path {
			var err error
			if dst, err = s.openSink(t); err != nil {
				return err
			}
		}
		if i == 0 {
			first = dst
		}
		r, w, err := s.pipe("output", p, readSide)
		if err != nil {
			return err
		}
		s.given[1+i] = w
		dst.users.Add(1)
		s.outputs = append(s.outputs, &pump{k: s.k, buffers: s.buffers, src: r, dst: dst, splice: dst.pipe})
	}
	return nil
}

// openSink opens a target of output.
func (s *IO) openSink(t target) (*sink, error) {
	o, err := openOutput(s.k, t)
	if err != nil {
		return nil, err
	}
	return s.addSink(o, o.keep >= 0)
}

func (s *IO) addSink(o output, pipe bool) (*sink, error) {
	dst, err := newSink(s.k, s.log, o, pipe)
	if err != nil {
		o.file.Close()
		if o.keep >= 0 {
			unix.Close(o.keep)
		}
		return nil, systemError("an output", err)
	}
	s.sinks = append(s.sinks, dst)
	return dst, nil
}

// openLogger starts the logger that reads what the process writes.
func (s *IO) openLogger(ctx context.Context, owner *children.Owner, p plan) error {
	var read [2]*os.File
	for i := range read {
		r, w, err := s.pipe("log", p, neitherSide)
		if err != nil {
			return err
		}
		defer r.Close()
		read[i], s.given[1+i] = r, w
	}
	return s.runLogger(ctx, owner, p, read, s.given[1])
}

// runLogger starts the logger, which is to read from two pipes, and closes our
// copies of them: only the logger may hold these, so that the process gets EPIPE
// when it dies and not a full pipe. out is the other end of the first.
func (s *IO) runLogger(ctx context.Context, owner *children.Owner, p plan, read [2]*os.File, out *os.File) (err error) {
	if s.logger, err = startLogger(ctx, s.k, owner, s.log, p, read[0], read[1]); err != nil {
		return err
	}
	for _, r := range read {
		r.Close()
	}
	return s.logger.confirm(ctx, s.k, out)
}

// openTerminal listens for the terminal and opens what it will be copied to.
func (s *IO) openTerminal(ctx context.Context, owner *children.Owner, p plan) (err error) {
	if p.stdin.kind != kindNone {
		src, err := s.openInput(p.stdin)
		if err != nil {
			return err
		}
		s.input = &pump{k: s.k, buffers: s.buffers, src: src, strict: true}
	}
	dst := &sink{k: s.k, log: s.log, keep: -1} // discards
	switch {
	case p.stdout.logger():
		dst, err = s.terminalLogger(ctx, owner, p)
	case p.stdout.kind != kindNone:
		if dst, err = s.openSink(p.stdout); err == nil && !dst.pipe {
			err = bad(p.stdout.path, "is not a FIFO, which a terminal needs")
		}
	}
	if err != nil {
		return err
	}
	dst.users.Add(1)
	s.outputs = []*pump{{k: s.k, buffers: s.buffers, dst: dst, terminal: true}}
	s.socket, err = newConsoleSocket(s.k)
	return err
}

// terminalLogger starts a logger for a terminal: its stderr ends at once.
func (s *IO) terminalLogger(ctx context.Context, owner *children.Owner, p plan) (*sink, error) {
	r, w, err := s.pipe("log", p, writeSide)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	dst, err := s.addSink(output{file: w, keep: -1}, true)
	if err != nil {
		return nil, err
	}
	er, ew, err := s.pipe("log", p, neitherSide)
	if err != nil {
		return nil, err
	}
	defer er.Close()
	defer ew.Close()
	return dst, s.runLogger(ctx, owner, p, [2]*os.File{r, er}, w)
}

// side says which end of a pipe is ours.
type side int

const (
	neitherSide side = iota
	readSide
	writeSide
)

// pipe makes a pipe that belongs to the process's user. Our end is non-blocking;
// O_NONBLOCK belongs to an end, so that the other's is not. Ours are closed by
// Close at the latest.
func (s *IO) pipe(name string, p plan, ours side) (r, w *os.File, err error) {
	rfd, wfd, err := s.k.pipe()
	if err != nil {
		return nil, nil, systemError("a pipe", err)
	}
	if p.uid != os.Geteuid() || p.gid != os.Getegid() {
		err = s.k.chown(rfd, p.uid, p.gid) // both ends: one inode
	}
	if err == nil && ours == readSide {
		err = s.k.nonblock(rfd)
	}
	if err == nil && ours == writeSide {
		err = s.k.nonblock(wfd)
	}
	if err != nil {
		unix.Close(rfd)
		unix.Close(wfd)
		return nil, nil, systemError("a pipe", err)
	}
	r, w = os.NewFile(uintptr(rfd), name), os.NewFile(uintptr(wfd), name)
	switch ours {
	case readSide:
		s.held = append(s.held, r)
	case writeSide:
		s.held = append(s.held, w)
	}
	return r, w, nil
}

// ourPipe makes a pipe whose reading end is ours.
func ourPipe(k kernel, name string) (r, w *os.File, err error) {
	rfd, wfd, err := k.pipe()
	if err != nil {
		return nil, nil, systemError("a pipe", err)
	}
	if err := k.nonblock(rfd); err != nil {
		unix.Close(rfd)
		unix.Close(wfd)
		return nil, nil, systemError("a pipe", err)
	}
	return os.NewFile(uintptr(rfd), name), os.NewFile(uintptr(wfd), name), nil
}
