package task

import (
	"context"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"google.golang.org/protobuf/types/known/emptypb"
)

// CloseIO closes the process's stdin once what was written to it is copied. Asked
// before the process is started, it is remembered.
func (s *Service) CloseIO(_ context.Context, r *task.CloseIORequest) (*emptypb.Empty, error) {
	_, p, _, err := s.locate(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.Stdin {
		p.closeStdin()
	}
	return &emptypb.Empty{}, nil
}

// ResizePty sets the size of the process's terminal; without one it does nothing.
func (s *Service) ResizePty(_ context.Context, r *task.ResizePtyRequest) (*emptypb.Empty, error) {
	_, p, _, err := s.locate(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if io := p.io.Load(); io != nil {
		err = io.Resize(uint16(min(r.Width, maxSide)), uint16(min(r.Height, maxSide)))
	}
	return &emptypb.Empty{}, err
}
