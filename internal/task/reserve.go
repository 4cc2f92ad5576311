package task

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// reserve is descriptors that are open for nothing, to be closed for the sake of what
// must work when there is none left (row 47): the end of a container. They are taken
// when half of all descriptors are in use, and left when a quarter is; a shim at rest
// has none. It has no goroutine and costs no memory but entries in a table.
type reserve struct {
	mu  sync.Mutex
	fds []int
	n   int
	// limit is the soft limit of descriptors.
	limit func() uint64
}

func newReserve(n int) *reserve { return &reserve{n: n, limit: descriptorLimit} }

// descriptorLimit is asked for each time: an administrator may change it (prlimit(1)).
func descriptorLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return 0 // as if all were in use
	}
	return limit.Cur
}

// look takes or leaves the reserve. It is called whenever a process's descriptors were
// opened or closed.
func (r *reserve) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookLocked()
}

// lookLocked is look with mu held.
func (r *reserve) lookLocked() {
	// The kernel gives out the lowest number, so that all below it are in use.
	fd, err := openNothing()
	if err != nil {
		return
	}
	unix.Close(fd)
	switch limit := r.limit(); {
	case uint64(fd) >= limit/2:
		r.fill()
	case uint64(fd) < limit/4:
		r.empty()
	}
}

func openNothing() (int, error) {
	return unix.Open(os.DevNull, unix.O_PATH|unix.O_CLOEXEC, 0)
}

// fill opens what is missing; mu is held.
func (r *reserve) fill() {
	for len(r.fds) < r.n {
		fd, err := openNothing()
		if err != nil {
			return // the next who comes tries again
		}
		r.fds = append(r.fds, fd)
	}
}

// empty closes them; mu is held.
func (r *reserve) empty() {
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	r.fds = r.fds[:0]
}

// during calls fn, and once more with the reserve set free if that failed for want of a
// descriptor. One at a time gets it: what is freed is enough for one.
func (r *reserve) during(fn func() error) error {
	err := fn()
	if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.lookLocked()
	r.empty()
	return fn()
}
