package task

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	fake "github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/order"
)

// oomRounds are real kills by the kernel; the race between the kill's notice and init's
// exit shows in one of some ten where the order is not kept.
const oomRounds = 12

// Invariant 17, W15: of a container whose init the OOM killer takes, the OOM is told
// before the exit that it explains, every time.
func TestInvariant17OOMBeforeExit(t *testing.T) {
	s := newShim(t)
	limit := int64(16 << 20)
	for i := range oomRounds {
		b := s.container(func(c *specs.Spec) {
			c.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
		}, "tail", "/dev/zero") // it reads what it takes for one line
		b.create()
		b.start("")
		if status := b.wait(""); status != 137 {
			t.Fatalf("round %d: status %d", i, status)
		}
		b.is(order.Exited, "")
		kinds := s.kinds(b.id)
		oom, exit := slices.Index(kinds, order.OOM), slices.Index(kinds, order.Exited)
		if oom < 0 || oom > exit {
			t.Errorf("round %d: %s", i, fmt.Sprint(kinds))
		}
		b.mustDelete("")
	}
}

// W5: a restored container is watched for OOM kills as any other.
func TestW5OOMOfARestoredContainer(t *testing.T) {
	s := newShim(t)
	b, _ := s.scripted(nil, fake.Profile{}, "sh", "-c", `while [ ! -e "$0" ]; do sleep 0.02; done; exec tail /dev/zero`, filepath.Join(s.dir, "go"))
	image := filepath.Join(s.dir, "image")
	if err := os.MkdirAll(image, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(image, "fake.img"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.request.Checkpoint = image
	b.create()
	b.start("")
	limited := false
	for _, dir := range b.groupDirs() {
		for _, file := range []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max"} {
			if os.WriteFile(filepath.Join(dir, file), []byte("16777216"), 0) == nil {
				limited = true
			}
		}
	}
	if !limited {
		t.Fatal("no limit of memory can be set")
	}
	if err := os.WriteFile(filepath.Join(s.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if status := b.wait(""); status != 137 {
		t.Errorf("status %d", status)
	}
	b.is(order.Exited, "")
	if got := s.kinds(b.id); !slices.Equal(got, []order.Kind{order.Created, order.Started, order.OOM, order.Exited}) {
		t.Errorf("events %v", got)
	}
	b.mustDelete("")
}
