package stdio

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// faulty makes the n-th call to the system fail, once.
type faulty struct {
	kernel
	errno unix.Errno
	n     int64
	calls *atomic.Int64
}

func (f faulty) fail() bool { return f.calls.Add(1) == f.n }

func (f faulty) open(path string, flags int, mode uint32) (int, error) {
	if f.fail() {
		return -1, f.errno
	}
	return f.kernel.open(path, flags, mode)
}

func (f faulty) fstat(fd int) (unix.Stat_t, error) {
	if f.fail() {
		return unix.Stat_t{}, f.errno
	}
	return f.kernel.fstat(fd)
}

func (f faulty) pipe() (int, int, error) {
	if f.fail() {
		return -1, -1, f.errno
	}
	return f.kernel.pipe()
}

func (f faulty) nonblock(fd int) error {
	if f.fail() {
		return f.errno
	}
	return f.kernel.nonblock(fd)
}

func (f faulty) chown(fd, uid, gid int) error {
	if f.fail() {
		return f.errno
	}
	return f.kernel.chown(fd, uid, gid)
}

func (f faulty) chmod(fd int, mode uint32) error {
	if f.fail() {
		return f.errno
	}
	return f.kernel.chmod(fd, mode)
}

func (f faulty) read(fd int, p []byte) (int, error) {
	if f.fail() {
		return -1, f.errno
	}
	return f.kernel.read(fd, p)
}

func (f faulty) write(fd int, p []byte) (int, error) {
	if f.fail() {
		return -1, f.errno
	}
	return f.kernel.write(fd, p)
}

func (f faulty) splice(from, to, n int) (int, error) {
	if f.fail() {
		return -1, f.errno
	}
	return f.kernel.splice(from, to, n)
}

func (f faulty) pipeSize(fd int) (int, error) {
	if f.fail() {
		return -1, f.errno
	}
	return f.kernel.pipeSize(fd)
}

func (f faulty) setPipeSize(fd, size int) error {
	if f.fail() {
		return f.errno
	}
	return f.kernel.setPipeSize(fd, size)
}

func (f faulty) mkdirTemp(dir, pattern string) (string, error) {
	if f.fail() {
		return "", f.errno
	}
	return f.kernel.mkdirTemp(dir, pattern)
}

func (f faulty) mkdirAll(dir string) error {
	if f.fail() {
		return f.errno
	}
	return f.kernel.mkdirAll(dir)
}

// Fail the n-th call, for all n: New says so and leaves nothing open, or, once
// copying has begun, the process still comes to its end and Close frees all.
func TestEveryCallFails(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENOSPC, unix.EIO, unix.EINTR} {
		for name, spec := range faultSpecs {
			t.Run(fmt.Sprint(errno, name), func(t *testing.T) {
				for n := int64(1); ; n++ {
					if calls := tryFault(t, spec, errno, n); calls < n {
						return // went through without the fault
					}
					if n > 1000 {
						t.Fatal("it never goes through")
					}
				}
			})
		}
	}
}

var faultSpecs = map[string]func(r *rig) Spec{
	"null": func(*rig) Spec { return Spec{} },
	"fifo": func(r *rig) Spec {
		return Spec{Stdin: r.fifo("in"), Stdout: r.fifo("out"), Stderr: r.fifo("err"), UID: 1, GID: 1}
	},
	"file":     func(r *rig) Spec { return Spec{Stdout: "file://" + r.path("a/b"), Stderr: "file://" + r.path("a/b")} },
	"terminal": func(r *rig) Spec { return Spec{Stdin: r.fifo("in"), Stdout: r.fifo("out"), Terminal: true} },
	"logger": func(r *rig) Spec {
		return Spec{Stdout: "binary-v2://" + r.script("l", "echo x >&5; exec 5>&-; cat <&3 >/dev/null")}
	},
}

// tryFault runs one process with the n-th call failing, and returns how many calls
// there were.
func tryFault(t *testing.T, makeSpec func(*rig) Spec, errno unix.Errno, n int64) int64 {
	r := newRig(t)
	spec := makeSpec(r)
	before := held(t, "")
	calls := &atomic.Int64{}
	k := restarting{faulty{host{}, errno, n, calls}}
	s, err := open(t.Context(), k, r.owner, slog.New(slog.NewTextHandler(r.log, nil)), spec)
	switch {
	case err == nil:
		r.IO = s
		r.runFaulty(spec)
	case !errors.Is(err, errno):
		t.Errorf("call %d: %v", n, err)
	}
	if after := held(t, ""); after != before {
		t.Errorf("call %d: %d descriptors before, %d after (%v)", n, before, after, err)
	}
	return calls.Load()
}

func (r *rig) runFaulty(spec Spec) {
	r.t.Helper()
	defer r.Close()
	if spec.Terminal {
		p := r.terminal("echo out")
		if err := r.Attach(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		r.wait(p)
	} else {
		var reader *os.File
		if spec.Stdin != "" {
			reader = r.reader(spec.Stdout)
			defer reader.Close()
			w := r.writer(spec.Stdin)
			if _, err := w.WriteString("in"); err != nil {
				r.t.Fatal(err)
			}
			w.Close()
			r.CloseStdin()
		}
		r.run("cat; head -c 40000 /dev/zero; echo err >&2")
	}
	ctx, cancel := contextWithTimeout(r.t, time.Minute)
	defer cancel()
	if err := r.Drain(ctx); err != nil {
		r.t.Error(err)
	}
}
