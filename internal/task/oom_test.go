package task

import (
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

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
