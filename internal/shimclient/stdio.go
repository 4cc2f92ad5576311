package shimclient

// FIFOs between a client and the processes of a container. The client's end is opened
// first, for reading and writing, so that neither side waits for the other; once the
// shim has opened its own ends (when Create or Start was answered) the spare end is
// closed and the end of the data is seen.

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
)

// FIFO is the client's end of one stream of a process.
type FIFO struct {
	// Path is what the shim is told.
	Path string
	// File is read for an output and written for an input. It is non-blocking and in
	// Go's poller, so that Close ends a pending Read or Write.
	File *os.File

	spare *os.File
}

// NewOutput makes a FIFO whose data the client reads.
func NewOutput(b *Bundle, name string) (*FIFO, error) { return newFIFO(b, name, os.O_RDONLY) }

// NewInput makes a FIFO that the client writes.
func NewInput(b *Bundle, name string) (*FIFO, error) { return newFIFO(b, name, os.O_WRONLY) }

func newFIFO(b *Bundle, name string, mode int) (*FIFO, error) {
	f := &FIFO{Path: filepath.Join(b.Path, name)}
	if err := unix.Mkfifo(f.Path, 0o600); err != nil {
		return nil, fmt.Errorf("make FIFO %s: %w", name, err)
	}
	var err error
	if f.spare, err = os.OpenFile(f.Path, os.O_RDWR|unix.O_NONBLOCK, 0); err != nil {
		return nil, fmt.Errorf("open FIFO %s: %w", name, err)
	}
	if f.File, err = os.OpenFile(f.Path, mode|unix.O_NONBLOCK, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("open FIFO %s: %w", name, err), f.spare.Close())
	}
	return f, nil
}

// Attached is called when the shim has opened its end.
func (f *FIFO) Attached() { f.spare.Close() }

// Close closes the client's ends and removes the FIFO.
func (f *FIFO) Close() {
	f.spare.Close()
	f.File.Close()
	os.Remove(f.Path)
}

// processType is the name by which containerd packs a process of the OCI specification.
const processType = "types.containerd.io/opencontainers/runtime-spec/1/Process"

// ProcessSpec packs the process of an Exec call: JSON, not protobuf, as it is no message.
func ProcessSpec(p *specs.Process) (*anypb.Any, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("pack the process: %w", err)
	}
	return &anypb.Any{TypeUrl: processType, Value: text}, nil
}
