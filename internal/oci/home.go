package oci

// home.go looks at the directory in which a runtime keeps its containers.

import (
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// place identifies a directory while it exists. The zero place is none.
type place struct{ dev, ino uint64 }

// place is the runtime's directory as it is now, the zero place if there is
// none.
func (r *Runtime) place() (place, error) {
	if r.root == "" {
		return place{}, nil
	}
	var st unix.Stat_t
	err := errno.Retry(func() error { return unix.Stat(r.root, &st) })
	if errno.IsMissing(err) {
		return place{}, nil
	}
	return place{dev: uint64(st.Dev), ino: st.Ino}, err
}

// home is the runtime's directory before a call about a container. Without the
// directory there is no such call: a runtime makes it anew, finds it empty, and
// so would prove that a container is gone whose state is elsewhere for a while.
func (r *Runtime) home(op string) (place, error) {
	switch op {
	case opCreate, opRestore, opFeatures, opVersion: // of no container yet
		return place{}, nil
	}
	p, err := r.place()
	if err != nil {
		return p, systemError(op, "the directory of the runtime's state, "+r.root, err)
	}
	if r.root != "" && p == (place{}) {
		return p, errno.Missing(said(op, "the directory of the runtime's state, "+r.root+", is not there"))
	}
	return p, nil
}
