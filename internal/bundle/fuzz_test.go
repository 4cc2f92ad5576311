package bundle

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
)

// An id that is taken is containerd's, the name of one file, and no flag; one that is
// not is refused with a class.
func FuzzIDs(f *testing.F) {
	for _, s := range []string{"", "a", "a.b-c_d", "..", "../x", "-a", "a/b", "a\x00", "\u0430", strings.Repeat("a", 76), strings.Repeat("a", 77), "init", "a\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseContainerID(s)
		e, execErr := ParseExecID(s)
		n, nsErr := ParseNamespace(s)
		want := len(s) <= maxIDLength && containerdRule.MatchString(s)
		if (err == nil) != want || (execErr == nil) != want || (nsErr == nil) != want {
			t.Fatalf("%q: %v, %v, %v; containerd says %v", s, err, execErr, nsErr, want)
		}
		if !want {
			if !errdefs.IsInvalidArgument(err) || !errdefs.IsInvalidArgument(execErr) || !errdefs.IsInvalidArgument(nsErr) {
				t.Errorf("%q: untyped: %v, %v, %v", s, err, execErr, nsErr)
			}
			return
		}
		if c.String() != s || e.String() != s || n.String() != s {
			t.Errorf("%q became %q, %q, %q", s, c, e, n)
		}
		if name := e.pidFile(); filepath.Base(name) != name || name == initPIDFile {
			t.Errorf("exec %q has the pid file %q", s, name)
		}
		if got := c.Sibling("/b/x"); filepath.Dir(got) != "/b" {
			t.Errorf("%q has the bundle %q", s, got)
		}
	})
}

// What a crash or somebody else has left in the bundle is read whole or refused: a pid
// is above 1, an exit has a time, and nothing panics (rows 31, 60, 61).
func FuzzRecords(f *testing.F) {
	f.Add([]byte("4711\n"))
	f.Add([]byte("-1"))
	f.Add([]byte(`{"Timestamp":"2026-01-02T03:04:05Z","Pid":7,"Status":137}`))
	f.Add([]byte(`{"Timestamp":"2026-01-02T03:04:05Z","Pid":-7,"Status":4294967296}`))
	f.Add([]byte(`{"binary_name":"runc","root":"/r"}`))
	f.Add([]byte(`{"Timestamp"`))
	f.Add([]byte{})
	b := open(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{initPIDFile, exitFile, optionsFile, runtimeFile} {
			put(t, b, name, string(data))
		}
		if pid, err := b.ReadPID(ExecID{}); err == nil && (pid <= 1 || pid > 1<<31-1) {
			t.Errorf("pid %d", pid)
		} else if err != nil && pid != 0 {
			t.Errorf("pid %d with %v", pid, err)
		}
		exit, err := b.ReadInitExit()
		if err == nil && (exit.PID < 0 || exit.At.IsZero()) || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("exit %+v, %v", exit, err)
		}
		o, err := b.ReadOptions()
		if (o == nil) == (err == nil) || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("options %v, %v", o, err)
		}
		// A new life of the bundle is not troubled by the old one's remains.
		if err := b.WriteOptions(&options.Options{BinaryName: "runc"}); err != nil {
			t.Fatal(err)
		}
		if err := b.WriteInitExit(InitExit{PID: 7, Status: 3, At: time.Unix(1, 0)}); err != nil {
			t.Fatal(err)
		}
		if e, err := b.ReadInitExit(); err != nil || e.Status != 3 {
			t.Errorf("a new record: %+v, %v", e, err)
		}
	})
}
