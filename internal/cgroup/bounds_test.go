package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/containerd/errdefs"
)

// A container makes cgroups below its own as it likes; looking at them ends.
func TestWalkIsBounded(t *testing.T) {
	f := newFake(t).layout(v2Mounts, "0::/shim\n")
	deep, wide := filepath.Join(f.cgfs, "deep"), filepath.Join(f.cgfs, "wide")
	path := deep
	for range maxDepth + 20 {
		path = filepath.Join(path, "d")
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range maxGroups + 50 {
		if err := os.MkdirAll(filepath.Join(wide, strconv.Itoa(i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := f.host()
	if found, err := h.groupsBelow(deep); err != nil || len(found) != maxDepth {
		t.Errorf("deep: %d groups, %v; want %d", len(found), err, maxDepth)
	}
	if found, err := h.groupsBelow(wide); err != nil || len(found) != maxGroups {
		t.Errorf("wide: %d groups, %v; want %d", len(found), err, maxGroups)
	}
}

// A file is read up to its bound.
func TestFilesAreBounded(t *testing.T) {
	f := newFake(t)
	path := f.write("long", "")
	if err := os.Truncate(path, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := kernel().readFile(path); !errdefs.IsResourceExhausted(err) {
		t.Errorf("%v, want ResourceExhausted", err)
	}
}
