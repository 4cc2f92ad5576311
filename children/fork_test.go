package children

// The fork itself: what it refuses, what it restores, and that it can be built.

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A program that cannot be executed is the same error as with Go's own fork, and leaves no child and no descriptor.
func TestF11ForkErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "text")
	if err := os.WriteFile(file, []byte("no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 1<<18)
	before := descriptors(t)
	for _, c := range []struct {
		path string
		argv []string
		attr syscall.ProcAttr
		want unix.Errno
	}{
		{path: "/nowhere", want: unix.ENOENT},
		{path: plain, want: unix.EACCES},
		{path: file, want: unix.ENOEXEC},
		{path: file + "/below", want: unix.ENOTDIR},
		{path: dir, want: unix.EACCES},
		{path: "/bin/true", argv: []string{long}, want: unix.E2BIG},
		{path: "/bin/true\x00", want: unix.EINVAL},
		{path: "/bin/true", argv: []string{"a\x00b"}, want: unix.EINVAL},
		{path: "/bin/true", attr: syscall.ProcAttr{Env: []string{"a\x00b"}}, want: unix.EINVAL},
		{path: "/bin/true", attr: syscall.ProcAttr{Dir: "/nowhere"}, want: unix.ENOENT},
		{path: "/bin/true", attr: syscall.ProcAttr{Dir: plain}, want: unix.ENOTDIR},
		{path: "/bin/true", attr: syscall.ProcAttr{Files: []uintptr{0, 1, 54321}}, want: unix.EBADF},
		{path: "/bin/true", attr: syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setpgid: true, Pgid: 1}}, want: unix.EPERM},
		{path: "/bin/true", attr: syscall.ProcAttr{Sys: &syscall.SysProcAttr{Pdeathsig: 99}}, want: unix.EINVAL},
	} {
		if c.attr.Sys == nil {
			c.attr.Sys = new(syscall.SysProcAttr)
		}
		fd := -1
		c.attr.Sys.PidFD = &fd
		_, errOurs := forkExec(c.path, c.argv, &c.attr, newFlight())
		_, _, errGos := syscall.StartProcess(c.path, c.argv, &c.attr)
		if !errors.Is(errOurs, c.want) || !errors.Is(errGos, c.want) || fd != -1 {
			t.Errorf("%q %+v: %v, and %v of Go's fork; want %v; pidfd %d", c.path, c.attr, errOurs, errGos, c.want, fd)
		}
	}
	if pids, err := childrenOf(kernel{}, "self"); err != nil || len(pids) > 0 {
		t.Error("left:", describe(pids), err)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

// Attributes that a script cannot express are left to Go's fork, and an attribute that a newer Go adds has to be looked
// at.
func TestF11Vforkable(t *testing.T) {
	known := map[string]bool{ // whether a script can do it
		"Setsid": true, "Setpgid": true, "Pgid": true, "Pdeathsig": true, "Credential": true, "PidFD": true,
		"Ctty": true, "CgroupFD": true, "GidMappingsEnableSetgroups": true, // parts of others
		"Cloneflags": false, // as set below
		"Chroot":     false, "Ptrace": false, "Setctty": false, "Noctty": false, "Foreground": false, "Unshareflags": false,
		"UidMappings": false, "GidMappings": false, "AmbientCaps": false, "UseCgroupFD": false,
	}
	for i := range reflect.TypeFor[syscall.SysProcAttr]().NumField() {
		name := reflect.TypeFor[syscall.SysProcAttr]().Field(i).Name
		can, ok := known[name]
		if !ok {
			t.Errorf("SysProcAttr has a new field %s", name)
			continue
		}
		var attr syscall.SysProcAttr
		switch f := reflect.ValueOf(&attr).Elem().Field(i); f.Kind() {
		case reflect.Bool:
			f.SetBool(true)
		case reflect.String:
			f.SetString("x")
		case reflect.Int:
			f.SetInt(1)
		case reflect.Uintptr:
			f.SetUint(unix.CLONE_NEWUSER)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		}
		if vforkable(&attr) != can {
			t.Errorf("%s: vforkable is %v", name, !can)
		}
	}
	if !vforkable(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}) || vforkable(&syscall.SysProcAttr{Cloneflags: unix.CLONE_FILES}) {
		t.Error("of the clone flags, namespaces only")
	}
}

// A child gets the limit of open files that this program was started with, though Go has raised it for itself; and the
// present one if it was changed since.
func TestF11FileLimit(t *testing.T) {
	cmd := exec.Command("sh", "-c", `ulimit -Sn 512; exec /proc/self/fd/3`)
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = part("limit").Env
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "512\n700\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// playLimit says on its standard output what its children's limits are.
func playLimit() {
	var now syscall.Rlimit
	check(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now))
	if now.Cur <= 700 {
		check(fmt.Errorf("Go has not raised the limit: %d", now.Cur))
	}
	o, err := NewOwner(quiet())
	check(err)
	say := func() {
		cmd := exec.Command("sh", "-c", "ulimit -Sn")
		cmd.Stdout = os.Stdout
		p, err := o.Start(cmd)
		check(err)
		_, err = p.Wait(o.life)
		check(err)
	}
	say()
	now.Cur = 700
	check(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &now))
	say()
	check(o.Close())
}

// While a child has descriptors of ours, syscall.ForkLock is held, once for all of them.
func TestF11ForkGate(t *testing.T) {
	g := newForkGate()
	full := func() bool { return false }
	free := func() bool {
		if !syscall.ForkLock.TryRLock() {
			return false
		}
		syscall.ForkLock.RUnlock()
		return true
	}
	first, second := g.enter(full), g.enter(full)
	if free() {
		t.Fatal("ForkLock is free during two forks")
	}
	first()
	if free() {
		t.Fatal("ForkLock is free during a fork")
	}
	second()
	if !free() {
		t.Fatal("ForkLock is held after the last fork")
	}
	var bare atomic.Bool
	leave := g.enter(bare.Load)
	if free() {
		t.Fatal("ForkLock is free while the child has descriptors")
	}
	bare.Store(true)
	syscall.ForkLock.RLock() // not before the child is bare, not as late as leave
	syscall.ForkLock.RUnlock()
	leave()
	if !free() || g.under != 0 {
		t.Errorf("after all: %d under way", g.under)
	}
}

// The functions of Go's runtime that the fork is made of can be linked, as Go's linker checks; and without them the
// package can be built too.
func TestF11Linknames(t *testing.T) {
	for _, tags := range []string{"", "lark_plainfork"} {
		cmd := exec.Command("go", "build", "-o", os.DevNull, "-buildvcs=false", "-tags="+tags, "-ldflags=-checklinkname=1",
			"github.com/larkshim/lark/children/internal/linktest")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("tags %q: %v\n%s", tags, err, out)
		}
	}
}
