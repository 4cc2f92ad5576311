package task

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Row 47: the reserve is set free for who needs it, and only then, and comes back.
func TestRow47Reserve(t *testing.T) {
	r := newReserve(8)
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
	r.n = 0
	_ = r.during(func() error { return unix.EMFILE }) // closes them
}
