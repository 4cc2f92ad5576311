package bench

// What each further container costs in one shim.

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/shimclient"
)

func addedSteps(b *bench) int { return b.rounds(0) * b.columnCount(false) }

func runAdded(ctx context.Context, b *bench, rt Runtime) error {
	return b.alternate(ctx, rt, b.rounds(0), false, "further containers", func(col column) (err error) {
		st, err := b.newRunningStage(ctx, *col.shim, rt)
		if err != nil {
			return err
		}
		var more []*shimclient.Bundle
		defer func() {
			for _, x := range more {
				err = errors.Join(err, st.down(ctx, x))
			}
			err = errors.Join(err, st.close(ctx))
		}()
		unix.Sync()
		if err := rest(ctx, settle); err != nil {
			return err
		}
		before, err := footprintOf(st.shim.Pid)
		if err != nil {
			return err
		}
		for i := range addedContainers {
			suffix := fmt.Sprintf("m%d", i)
			x, err := st.home.NewBundle(st.name(suffix), st.spec(suffix, "sleep", "2147483647"))
			if err != nil {
				return err
			}
			st.shim.Adopt(x)
			if err := st.up(ctx, x); err != nil {
				return err
			}
			more = append(more, x)
		}
		if err := rest(ctx, settle); err != nil {
			return err
		}
		after, err := footprintOf(st.shim.Pid)
		if err != nil {
			return err
		}
		const kB = 1e3
		k := Key{Measure: "added", Runtime: rt.Name}
		b.result.add(k.of("private"), col, unit{"private memory of each further container", "kB", Lower}, (after.Private-before.Private)/kB/addedContainers)
		b.result.add(k.of("descriptors"), col, unit{"descriptors of each further container", "", Lower}, (after.Descriptors-before.Descriptors)/addedContainers)
		b.result.add(k.of("threads"), col, unit{"threads with the further containers", "", Lower}, after.Threads)
		b.progress.step()
		return nil
	})
}
