package bench

// Standard output: a process writes 256 MiB in blocks of 64 KiB, the client reads them off
// the FIFO and throws them away. MB/s, and the shim's CPU per MB.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"

	"github.com/larkshim/lark/internal/shimclient"
)

func stdoutSteps(b *bench) int { return b.rounds(0) * b.columnCount(false) }

func runStdout(ctx context.Context, b *bench, rt Runtime) error {
	return b.alternate(ctx, rt, b.rounds(0), false, "standard output", func(col column) (err error) {
		st, err := b.newRunningStage(ctx, *col.shim, rt)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.close(ctx)) }()
		took, cpu, err := st.output(ctx)
		if err != nil {
			return err
		}
		const mb = 1e6
		size := float64(outputMB<<20) / mb
		k := Key{Measure: "stdout", Runtime: rt.Name}
		b.result.add(k.of("rate"), col, unit{"standard output", "MB/s", Higher}, size/took.Seconds())
		b.result.add(k.of("cpu"), col, unit{"shim CPU per MB of output", "ms", Lower}, milliseconds(cpu)/size)
		b.progress.step()
		return nil
	})
}

// writer is the command that writes: the stub knows it by name, in a real container
// busybox's dd does it.
func (st *stage) writer() []string {
	if st.rt.Stub {
		return []string{"lark-write"}
	}
	return []string{"dd", "if=/dev/zero", "bs=65536", fmt.Sprintf("count=%d", outputMB<<20/65536)}
}

// output runs the writer and reads what it writes.
func (st *stage) output(ctx context.Context) (took, cpu time.Duration, err error) {
	process, err := st.process(st.writer()...)
	if err != nil {
		return 0, 0, err
	}
	fifo, err := shimclient.NewOutput(st.bundle, "out")
	if err != nil {
		return 0, 0, err
	}
	defer fifo.Close()
	// Containerd's shims refuse a process with one output only.
	other, err := shimclient.NewOutput(st.bundle, "err")
	if err != nil {
		return 0, 0, err
	}
	defer other.Close()
	stop := context.AfterFunc(ctx, func() { fifo.File.Close() })
	defer stop()
	before, err := cpuOf(st.shim.Pid)
	if err != nil {
		return 0, 0, err
	}
	read := make(chan error, 1)
	begin := time.Now()
	go func() { read <- drain(fifo.File) }()
	id := st.execID()
	if err := st.startExec(ctx, id, process, fifo.Path, other.Path); err != nil {
		return 0, 0, err
	}
	fifo.Attached()
	other.Attached()
	if err := <-read; err != nil {
		return 0, 0, err
	}
	took = time.Since(begin)
	if _, err := st.shim.Wait(ctx, &taskapi.WaitRequest{ID: st.bundle.ID, ExecID: id}); err != nil {
		return 0, 0, err
	}
	after, err := cpuOf(st.shim.Pid)
	return took, after - before, err
}

// drain reads to the end, which must be where it is expected.
func drain(r io.Reader) error {
	buf := make([]byte, outputBuffer)
	total := 0
	for {
		n, err := r.Read(buf)
		total += n
		switch {
		case err == io.EOF && total == outputMB<<20:
			return nil
		case err == io.EOF:
			return fmt.Errorf("%d bytes of output, not %d", total, outputMB<<20)
		case err != nil:
			return err
		}
	}
}
