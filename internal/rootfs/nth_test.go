package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"
)

// counted is the kernel with its n-th call failing; open counts the descriptors.
type counted struct {
	n, at, open int
	errno       unix.Errno
}

func (c *counted) fails() bool { c.n++; return c.n == c.at }

func (c *counted) system() *system {
	k := kernel()
	s := *k
	s.openat = func(dir int, name string, flags int) (int, error) {
		if c.fails() {
			return -1, c.errno
		}
		fd, err := k.openat(dir, name, flags)
		if err == nil {
			c.open++
		}
		return fd, err
	}
	s.close = func(fd int) error { c.open--; return k.close(fd) }
	s.fstat = func(fd int, st *unix.Stat_t) error { return c.or(func() error { return k.fstat(fd, st) }) }
	s.mkdirat = func(d int, n string, m uint32) error { return c.or(func() error { return k.mkdirat(d, n, m) }) }
	s.chmodat = func(d int, n string, m uint32) error { return c.or(func() error { return k.chmodat(d, n, m) }) }
	s.mount = func(src, target, fstype string, flags uintptr, data string) error {
		return c.or(func() error { return k.mount(src, target, fstype, flags, data) })
	}
	s.setattr = func(fd int, flags uint, a *unix.MountAttr) error {
		return c.or(func() error { return k.setattr(fd, flags, a) })
	}
	s.move = func(fd, d int, to string) error { return c.or(func() error { return k.move(fd, d, to) }) }
	s.openTree = func(fd int, flags uint) (int, error) {
		if c.fails() {
			return -1, c.errno
		}
		fd, err := k.openTree(fd, flags)
		if err == nil {
			c.open++
		}
		return fd, err
	}
	return &s
}

func (c *counted) or(call func() error) error {
	if c.fails() {
		return c.errno
	}
	return call()
}

// Fail the N-th call of a Mount, for all N: it says so, and an Unmount that works leaves no mount and no descriptor.
// (Calls on the way out are not failed here: what they leave, the daemon's `delete` finds again.)
func TestRow27FailTheNth(t *testing.T) {
	b := bundleDir(t)
	base := filepath.Dir(b)
	lower := layers(t, base, 3)
	must(t, os.Mkdir(base+"/src", 0o755))
	mounts := []*types.Mount{
		overlay(t, base, lower, "uidmap=0:100000:65536", "gidmap=0:200000:65536"),
		bind(base+"/src", "", "ro", "nosuid"),
		bind(lower[0], "", "uidmap=0:1:1", "gidmap=0:1:1"),
	}
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENOSPC, unix.EIO} {
		points := 0
		for n := 1; ; n++ {
			c := &counted{at: n, errno: errno}
			m := &Mounter{sys: c.system()}
			_, err := m.Mount(b, mounts)
			failed := c.n >= n
			c.at = 0
			if failed && !errors.Is(err, errno) {
				t.Fatalf("%v at call %d came back as %v", errno, n, err)
			}
			must(t, m.Unmount(b))
			if left := mountsBelow(t, b); len(left) > 0 {
				t.Fatalf("%v at call %d leaves %q", errno, n, left)
			}
			if _, err := os.Lstat(b + "/" + lowerName); !os.IsNotExist(err) {
				t.Fatalf("%v at call %d leaves the layers' mount point", errno, n)
			}
			if c.open != 0 {
				t.Fatalf("%v at call %d leaves %d descriptors", errno, n, c.open)
			}
			if !failed {
				must(t, err)
				break
			}
			points++
		}
		t.Logf("%v: %d points", errno, points)
		if points < 25 {
			t.Errorf("%v: only %d points", errno, points)
		}
	}
}
