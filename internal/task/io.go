package task

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/failpoint"
)

// CloseIO closes the process's stdin once what was written to it is copied. Asked
// before the process is started, it is remembered.
func (s *Service) CloseIO(_ context.Context, r *task.CloseIORequest) (*emptypb.Empty, error) {
	_, p, _, err := s.locate(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	failpoint.Step("close io: found")
	if r.Stdin {
		p.closeStdin()
	}
	return &emptypb.Empty{}, nil
}

// ResizePty sets the size of the process's terminal; without one it does nothing.
// Asked before the process is started, it is remembered: clients ask as soon as the
// exec is added.
func (s *Service) ResizePty(_ context.Context, r *task.ResizePtyRequest) (*emptypb.Empty, error) {
	_, p, _, err := s.locate(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	failpoint.Step("resize: found")
	size := &specs.Box{Width: uint(min(r.Width, maxSide)), Height: uint(min(r.Height, maxSide))}
	p.size.Store(size) // before the look: setIO looks the other way round
	if io := p.io.Load(); io != nil {
		err = resize(io, size)
	}
	return &emptypb.Empty{}, err
}

// resize sets the size of a terminal; no side is above maxSide.
func resize(io streams, size *specs.Box) error {
	return io.Resize(uint16(size.Width), uint16(size.Height))
}

// sized puts the terminal's size into the JSON of a process spec. The process then
// has it from its first instruction on: the terminal itself comes to us only when
// the process may be running.
func sized(spec []byte, size *specs.Box) []byte {
	if size == nil || size.Width == 0 || size.Height == 0 {
		return spec
	}
	const name = "consoleSize"
	var members map[string]json.RawMessage
	if json.Unmarshal(spec, &members) != nil {
		return spec // the runtime says what is wrong with it
	}
	for member := range members {
		if strings.EqualFold(member, name) {
			delete(members, member)
		}
	}
	value, err := json.Marshal(size)
	if err != nil {
		return spec
	}
	members[name] = value
	if with, err := json.Marshal(members); err == nil {
		return with
	}
	return spec
}
