package cgroup

import (
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"
)

// Stats is what the group has used, as the message that clients of containerd decode.
func (g Group) Stats() (*anypb.Any, error) {
	return nil, fmt.Errorf("no cgroup: %w", errdefs.ErrNotFound)
}
