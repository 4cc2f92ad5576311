package task

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// reserve is descriptors that are open for nothing, to be closed for the sake of what
// must work when there is none left (row 47): the end of a container. It has no
// goroutine and costs no memory but entries in a table.
type reserve struct {
	mu  sync.Mutex
	fds []int
	n   int
}

// newReserve keeps n descriptors, or as many as it gets.
func newReserve(n int) *reserve {
	r := &reserve{n: n, fds: make([]int, 0, n)}
	r.fill()
	return r
}

// fill opens what is missing; mu is held, but by newReserve.
func (r *reserve) fill() {
	for len(r.fds) < r.n {
		fd, err := unix.Open(os.DevNull, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return // the next who comes tries again
		}
		r.fds = append(r.fds, fd)
	}
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
	defer r.fill()
	r.fill() // as it may have come back meanwhile
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	r.fds = r.fds[:0]
	return fn()
}
