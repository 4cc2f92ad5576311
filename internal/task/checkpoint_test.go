package task

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is kept of CRIU's log: its end, bounded, in a file that only we can read. A link
// or a FIFO in the place of either is not followed and not waited for.
func TestCopyTail(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	long := strings.Repeat("x", maxDumpLog) + "the end"
	if err := errors.Join(
		os.WriteFile(at("log"), []byte(long), 0o600), os.WriteFile(at("victim"), []byte("kept"), 0o644),
		os.Symlink(at("victim"), at("to")), os.Symlink(at("log"), at("link")), unix.Mkfifo(at("fifo"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	if err := copyTail(at("to"), at("log")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(at("to"))
	if err != nil || len(data) != maxDumpLog || !strings.HasSuffix(string(data), "the end") {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if st, err := os.Lstat(at("to")); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st, err)
	}
	if data, _ := os.ReadFile(at("victim")); string(data) != "kept" {
		t.Errorf("the link was written through: %q", data)
	}
	for _, from := range []string{"link", "fifo", "missing", "."} {
		if err := copyTail(at("other"), at(from)); err == nil {
			t.Errorf("%s was read", from)
		}
	}
}
