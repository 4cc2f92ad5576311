package stdio

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// earlyHangup is a terminal that says EIO before it has given all it has.
type earlyHangup struct {
	kernel
	lies *int
}

func (e earlyHangup) read(fd int, p []byte) (int, error) {
	if *e.lies > 0 {
		*e.lies--
		return -1, unix.EIO
	}
	return e.kernel.read(fd, p)
}

// Row 45: a hang-up is believed only when the terminal goes on saying so, because the
// kernel may have the last kilobytes on their way.
func TestRow45HangupBeforeTheLastOfTheOutput(t *testing.T) {
	for lies, want := range map[int]string{0: "the last", 1: "the last", hangupReads - 1: "the last", hangupReads: ""} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString("the last"); err != nil {
			t.Fatal(err)
		}
		w.Close()
		path := filepath.Join(t.TempDir(), "out")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		k := earlyHangup{kernel: host{}, lies: &lies}
		dst, err := newSink(k, slog.New(slog.DiscardHandler), output{file: f, keep: -1}, false)
		if err != nil {
			t.Fatal(err)
		}
		p := &pump{k: k, buffers: &buffers{}, src: r, dst: dst, terminal: true}
		p.exited.Store(true)
		p.run()
		dst.close()
		r.Close()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
}
