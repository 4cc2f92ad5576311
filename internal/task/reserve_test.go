package task

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// openDescriptors counts the descriptors of /dev/null, of which a reserve is made:
// others come and go with the owner's sweep.
func openDescriptors(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); to == os.DevNull {
			n++
		}
	}
	return n
}

// Row 47: the reserve is set free for who needs it, and only then, and comes back.
func TestRow47Reserve(t *testing.T) {
	r := newReserve(8)
	r.limit = func() uint64 { return 1 } // so that all are in use
	r.look()
	before := openDescriptors(t)
	var seen []int
	for name, c := range map[string]struct {
		errs []error
		want []int // descriptors less than before, at each try
		err  error
	}{
		"goes well":        {[]error{nil}, []int{0}, nil},
		"fails otherwise":  {[]error{unix.EIO}, []int{0}, unix.EIO},
		"none left":        {[]error{fmt.Errorf("x: %w", unix.EMFILE), nil}, []int{0, 8}, nil},
		"none left at all": {[]error{unix.ENFILE, unix.ENFILE}, []int{0, 8}, unix.ENFILE},
	} {
		seen = nil
		err := r.during(func() error {
			seen = append(seen, before-openDescriptors(t))
			return c.errs[len(seen)-1]
		})
		if err != c.err || fmt.Sprint(seen) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, descriptors %v", name, err, seen)
		}
		if now := openDescriptors(t); now != before {
			t.Errorf("%s: %d descriptors afterwards, %d before", name, now, before)
		}
	}
	r.empty()
}

// F29: the reserve is taken when descriptors become few, and not before.
func TestF29ReserveIsTakenWhenNeeded(t *testing.T) {
	r := newReserve(8)
	defer r.empty()
	used, err := openNothing() // the lowest free number: all below it are in use
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(used)
	before := openDescriptors(t)
	for _, c := range []struct {
		limit, kept int
	}{{100 * used, 0}, {3 * used, 0}, {used, 8}, {3 * used, 8}, {100 * used, 0}} {
		r.limit = func() uint64 { return uint64(c.limit) }
		r.look()
		if len(r.fds) != c.kept || openDescriptors(t) != before+c.kept {
			t.Errorf("with a limit of %d, %d in use: %d are kept, want %d", c.limit, used, len(r.fds), c.kept)
		}
	}
}
