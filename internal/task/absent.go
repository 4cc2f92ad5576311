package task

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// notFound says that the shim has no such container or process, or that the
// shim itself has seen its end. NotFound orders a client to forget it, so that
// no other function of lark may say it, but for the runtime's own word in
// package oci; TestF01OnlyTwoSayNotFound finds every other place.
func notFound(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrNotFound)...)
}
