package oci

// bench_test.go: what a call costs beyond the runtime itself.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkExec runs execs of true, through this package and bare (the same runc
// command line from os/exec, the process reaped by its pid file), with so many in
// flight. cpu-us/op is the user and system time of this process alone.
func BenchmarkExec(b *testing.B) {
	for _, inFlight := range []int{1, 32} {
		for _, how := range []string{"bare", "lark"} {
			b.Run(fmt.Sprintf("%s-%d", how, inFlight), func(b *testing.B) {
				c := newReal(b, "sleep", "1000")
				c.up(b)
				if err := c.Start(b.Context(), c.id); err != nil {
					b.Fatal(err)
				}
				run := c.benchExec
				if how == "bare" {
					spec := filepath.Join(c.dir, "true.json")
					if err := os.WriteFile(spec, process("true"), 0o600); err != nil {
						b.Fatal(err)
					}
					run = func(b *testing.B, n int) { c.bareExec(b, spec, n) }
					c.owner.Close()
					if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
						b.Fatal(err)
					}
					defer c.reopen(b)
				}
				var n atomic.Int64
				b.SetParallelism((inFlight + 1) / 2)
				if inFlight == 1 {
					measureCPU(b, func() {
						for b.Loop() {
							run(b, int(n.Add(1)))
						}
					})
					return
				}
				measureCPU(b, func() {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							run(b, int(n.Add(1)))
						}
					})
				})
			})
		}
	}
}

func measureCPU(b *testing.B, fn func()) {
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	fn()
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-us/op")
}

func (c *real) benchExec(b *testing.B, n int) {
	child, err := c.exec(b, fmt.Sprintf("e%d", n), &files3{}, "true")
	if err != nil {
		b.Error(err)
		return
	}
	if exit, err := child.Wait(b.Context()); err != nil || exit.Status != 0 {
		b.Errorf("%+v, %v", exit, err)
	}
}

// bareExec is run without an owner: its sweep would reap what is waited for here.
func (c *real) bareExec(b *testing.B, spec string, n int) {
	pidFile := filepath.Join(c.dir, fmt.Sprintf("e%d.pid", n))
	defer os.Remove(pidFile)
	cmd := exec.Command(c.binary, "--root", c.root, "exec", "--process", spec, "--detach", "--pid-file", pidFile, c.id)
	if err := cmd.Run(); err != nil {
		b.Error(err)
		return
	}
	data, err := os.ReadFile(pidFile)
	if err != nil {
		b.Error(err)
		return
	}
	pid, err := parsePid(data)
	if err != nil {
		b.Error(err)
		return
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		b.Errorf("status %v: %v", status, err)
	}
}

// BenchmarkSpec compares ways to hand a process spec to the runtime: a plain file
// on a disk and on a tmpfs, and the file in memory that is used.
func BenchmarkSpec(b *testing.B) {
	spec := process("sh", "-c", "exit 0")
	for _, dir := range []string{b.TempDir(), "/dev/shm"} {
		path := filepath.Join(dir, fmt.Sprintf("lark-spec-%d", os.Getpid()))
		b.Run("file in "+filepath.Dir(dir), func(b *testing.B) {
			measureCPU(b, func() {
				for b.Loop() {
					if err := os.WriteFile(path, spec, 0o600); err != nil {
						b.Fatal(err)
					}
					if _, err := (host{}).readFile(path, 4096); err != nil {
						b.Fatal(err)
					}
					if err := (host{}).remove(path); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
	b.Run("memory", func(b *testing.B) {
		measureCPU(b, func() {
			for b.Loop() {
				f, err := host{}.memory("spec", spec)
				if err != nil {
					b.Fatal(err)
				}
				fd, err := unix.Open(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := unix.Read(fd, make([]byte, 4097)); err != nil {
					b.Fatal(err)
				}
				unix.Close(fd)
				f.Close()
			}
		})
	})
}
