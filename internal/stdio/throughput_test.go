package stdio

// throughput_test.go: what copying costs. One process writes, one reads the FIFO;
// cpu-us/MB is the user and system time of this process alone.

import (
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children"
)

// BenchmarkCopy copies b.N MiB from a process's stdout to a FIFO, in pieces of the
// given size, with splice, without it, and through io.CopyBuffer with 4 KiB, as
// other shims do.
func BenchmarkCopy(b *testing.B) {
	for _, piece := range []string{"64k", "4k", "100"} {
		for _, how := range []string{"splice", "buffer", "4KiB"} {
			b.Run(piece+"/"+how, func(b *testing.B) { benchCopy(b, piece, how) })
		}
	}
}

func benchCopy(b *testing.B, piece, how string) {
	owner, err := children.NewOwner(slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer owner.Close()
	out := filepath.Join(b.TempDir(), "out")
	if err := unix.Mkfifo(out, 0o600); err != nil {
		b.Fatal(err)
	}
	s, err := New(b.Context(), owner, nil, Spec{Stdout: out})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	s.outputs[0].splice = how == "splice"
	reader := exec.Command("dd", "if="+out, "of=/dev/null", "bs=64k", "status=none")
	writer := exec.Command("sh", "-c", `yes "$(printf %099d)" | dd bs=`+piece+` iflag=fullblock count="$1" of=/dev/stdout status=none`, "sh", count(b.N, piece))
	s.Set(writer)
	r, err := owner.Start(reader)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(1 << 20)
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	b.ResetTimer()
	if _, err := owner.Start(writer); err != nil {
		b.Fatal(err)
	}
	_ = s.CloseAfterStart()
	if how == "4KiB" {
		dst := s.outputs[0].dst.file
		_, _ = io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{s.outputs[0].src}, make([]byte, 4096))
		s.Close()
	} else {
		if err := s.Attach(b.Context()); err != nil {
			b.Fatal(err)
		}
		<-s.drained
	}
	b.StopTimer()
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	s.Close()
	if _, err := r.Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/1000/float64(b.N), "cpu-us/MB")
}

// count is how many pieces make n MiB.
func count(n int, piece string) string {
	size := map[string]int{"64k": 64 << 10, "4k": 4 << 10, "100": 100}[piece]
	return strconv.Itoa(n * (1 << 20) / size)
}
