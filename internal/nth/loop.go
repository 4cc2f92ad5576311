package nth

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Fault is what is to fail in one life of whatever is tried: the N-th call that can end
// with Errno, and every so manieth after it. The zero Fault is none.
type Fault struct {
	N, Every int
	Errno    unix.Errno
}

func (f Fault) String() string { return fmt.Sprintf("%s at call %d", Name(f.Errno), f.N) }

// All lives one life for each fault there can be, in a subtest for each errno, until there
// is no N-th call: least is how many there are at least. life returns how many calls have
// failed, and what was told of it.
//
// EINTR is to be noticed by nobody, so that no life ends with the first of it: one does for
// all the calls that are so far apart.
func All(t *testing.T, apart int, least map[unix.Errno]int, life func(*testing.T, Fault) (faults int, told error)) {
	for _, errno := range slices.Concat(Errnos, Worlds()) {
		t.Run(Name(errno), func(t *testing.T) {
			points, told := 0, 0
			count := func(f Fault) bool {
				faults, err := life(t, f)
				points += faults
				if err != nil {
					told++
				}
				return faults > 0 && !t.Failed()
			}
			if errno == unix.EINTR {
				for n := 1; n <= apart; n++ {
					count(Fault{N: n, Every: apart, Errno: errno})
				}
			} else {
				for n := 1; count(Fault{N: n, Errno: errno}); n++ {
				}
			}
			t.Logf("%s: %d points%s", Name(errno), points, ofWhich(told))
			if points < least[errno] && !t.Failed() {
				t.Errorf("%d points are too few", points)
			}
		})
	}
}

func ofWhich(told int) string {
	if told == 0 {
		return ""
	}
	return fmt.Sprintf(", of which %d were told", told)
}

// Judge holds what was told against what has happened: its class is that of the errno, of
// EINTR nothing may be told, and of the world everything but NotFound: that orders a client
// to forget what lives (F01, FAULTS.md).
func (f Fault) Judge(t *testing.T, r Report, told error) {
	t.Helper()
	class := map[unix.Errno]func(error) bool{
		emfile: errdefs.IsResourceExhausted, enospc: errdefs.IsResourceExhausted, eagain: errdefs.IsResourceExhausted,
		eio: errdefs.IsInternal, eintr: func(error) bool { return false },
	}[f.Errno]
	if IsWorld(f.Errno) {
		class = func(err error) bool { return !errdefs.IsNotFound(err) }
	}
	if r.Faults == 0 {
		t.Errorf("%v: nothing failed, and told was %v", f, told)
	} else if !class(told) {
		t.Errorf("%v, %s: told as %v", f, r.Failed, told)
	}
}

// Armed lives a life with the fault.
func (w *Watched) Armed(t *testing.T, f Fault, life func(context.Context) error) (r Report, told error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.Arm(f); err != nil {
		t.Fatal(err)
	}
	told = life(ctx)
	r, err := w.Disarm()
	if err != nil {
		t.Fatal(err)
	}
	if told != nil {
		f.Judge(t, r, told)
	}
	return r, told
}
