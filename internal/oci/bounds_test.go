package oci

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever a runtime writes, the shim keeps a bounded part of it: of an answer the
// beginning, of the words about a failure the end.
func TestOutputIsBounded(t *testing.T) {
	for name, c := range map[string]*collector{
		"stderr": {max: stderrTail, tail: true}, "stdout": {max: stdoutMax},
	} {
		piece := bytes.Repeat([]byte("x"), chunk)
		for range 3 * stdoutMax / chunk {
			c.add(piece)
		}
		c.add([]byte("last"))
		if limit := 2 * c.max; len(c.buf) > limit || cap(c.buf) > 2*limit {
			t.Errorf("%s: %d bytes are kept in %d, of a bound of %d", name, len(c.buf), cap(c.buf), c.max)
		}
		if !c.over || c.tail != bytes.HasSuffix(c.buf, []byte("last")) {
			t.Errorf("%s: over %v, ends with %q", name, c.over, c.buf[len(c.buf)-4:])
		}
	}
}

// Of a log, however long, the end is read.
func TestLogTailIsBounded(t *testing.T) {
	fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	text := strings.Repeat("y", 4*logTail) + "end"
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		t.Fatal(err)
	}
	for _, from := range []int64{0, 7, int64(len(text)) - 3, int64(len(text)) + 100} {
		got, err := endOf(fd, from, logTail)
		if err != nil || len(got) > logTail || !strings.HasSuffix(string(got), "end") {
			t.Errorf("from %d: %d bytes, %v", from, len(got), err)
		}
	}
}

// A pid file is read up to its bound, and a pid above the kernel's highest is none.
func TestPidFileIsBounded(t *testing.T) {
	for _, text := range []string{fmt.Sprint(maxPid + 1), strings.Repeat("1", pidFileMax+1), strings.Repeat("0", 1000)} {
		if pid, err := parsePid([]byte(text)); err == nil {
			t.Errorf("%.40q is pid %d", text, pid)
		}
	}
	if pid, err := parsePid(fmt.Append(nil, maxPid)); err != nil || pid != maxPid {
		t.Errorf("the highest: %d, %v", pid, err)
	}
}
