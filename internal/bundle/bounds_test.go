package bundle

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
)

// A file of the bundle that is longer than anything it could mean is refused, and not
// read to its end: it may be sparse and claim any length.
func TestReadsAreBounded(t *testing.T) {
	b := open(t)
	for name, read := range map[string]func() error{
		specFile:    func() error { _, err := b.ReadSpec(); return err },
		optionsFile: func() error { _, err := b.ReadOptions(); return err },
		exitFile:    func() error { _, err := b.ReadInitExit(); return err },
		initPIDFile: func() error { _, err := b.ReadPID(ExecID{}); return err },
	} {
		limit := map[string]int64{specFile: MaxSpecSize, optionsFile: maxRecordSize, exitFile: maxRecordSize, initPIDFile: maxPIDFileSize}[name]
		for _, size := range []int64{limit + 1, 1 << 40} {
			put(t, b, name, "")
			if err := os.Truncate(filepath.Join(b.Path(), name), size); err != nil {
				t.Fatal(err)
			}
			if err := read(); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s of %d bytes: %v, want InvalidArgument", name, size, err)
			}
		}
	}
}
