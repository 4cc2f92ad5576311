package field

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/e2e/daemon"
)

// F05: a shim whose containerd is gone for good, whose init is dead and whose bundle
// was removed, ends.
func TestF05OrphanedShim(t *testing.T) {
	for _, binary := range daemon.Containerds() {
		t.Run(daemon.VersionOf(binary), func(t *testing.T) {
			t.Parallel() // each waits most of the time
			ctx, cancel := context.WithTimeout(t.Context(), bound)
			defer cancel()
			shim := daemon.ShimFor(binary)
			name, err := daemon.RuntimeName(shim)
			if err != nil {
				t.Fatal(err)
			}
			d, err := daemon.Start(ctx, daemon.Config{Binary: binary, ShimDir: filepath.Dir(shim), Env: []string{"LARK_FORSAKEN_AFTER=1s"}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := d.Stop(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			c, err := d.Client(ctx, "orphan")
			if err != nil {
				t.Fatal(err)
			}
			s := &stage{T: t, Client: c, ctx: ctx, d: d, rt: name}
			init := s.sleeper("a")
			bundle := filepath.Join(d.State(), "io.containerd.runtime.v2.task/orphan", s.id("a"))
			s.must(d.Kill())
			s.must(unix.Kill(init, unix.SIGKILL))
			s.until("init is dead", func() bool { return !alive(init) })
			s.must(unix.Unmount(bundle+"/rootfs", unix.MNT_DETACH))
			// The shim may be writing init's exit status there.
			s.until("the bundle is gone", func() bool { return os.RemoveAll(bundle) == nil })
			s.until("the shim has ended", func() bool { return len(d.Shims()) == 0 })
		})
	}
}
