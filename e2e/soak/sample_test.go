package soak

import (
	"maps"
	"slices"
	"testing"
)

const dump = `level=INFO msg=other
=== BEGIN goroutine stacks ===
goroutine 1 [select]:
main.main()
	/x/main.go:1 +0x1

goroutine 7 [IO wait]:
x.read(0x1)
	/x/x.go:2 +0x1
created by x.serve in goroutine 1
	/x/x.go:9 +0x1

goroutine 9 [chan receive, 3 minutes]:
x.read(0x2)
	/x/x.go:2 +0x1
created by x.serve in goroutine 1
	/x/x.go:9 +0x1

=== END goroutine stacks ===
`

func TestCountStacks(t *testing.T) {
	counts, ok := countStacks([]byte(dump))
	if want := map[string]int{"main": 1, "x.serve": 2}; !ok || !maps.Equal(counts, want) {
		t.Errorf("%v, %v; want %v", counts, ok, want)
	}
	for _, part := range []string{"", dump[:len(dump)/2], dump[40:]} {
		if _, ok := countStacks([]byte(part)); ok {
			t.Errorf("a part of a dump was counted: %q", part)
		}
	}
}

func TestMoreNamesWhatHasGrown(t *testing.T) {
	first := Sample{stacks: map[string]int{"a": 1, "b": 2}, fds: []string{"/x", "pipe:[1]", "anon_inode:[pidfd]"}}
	last := Sample{stacks: map[string]int{"a": 3, "b": 2}, fds: []string{"/x", "pipe:[7]", "pipe:[8]", "anon_inode:[pidfd]"}}
	want := []string{"descriptors of pipe: 2, at first 1", "goroutines of a: 3, at first 1"}
	if got := more(first, last); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
